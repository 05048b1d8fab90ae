// Package deploy lets Complement start homeservers of this checkout as plain processes.
//
// A homeserver is called hs1, hs2, … as Complement's tests expect, has a listener for clients and one with TLS for
// federation, and finds the others at fixed addresses. It knows the application services of its blueprint.
package deploy

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/matrix-org/complement/b"
	"github.com/matrix-org/complement/client"
	"github.com/matrix-org/complement/config"
	"github.com/matrix-org/complement/ct"
	"github.com/matrix-org/complement/helpers"
	"github.com/matrix-org/gomatrixserverlib"
	"github.com/matrix-org/gomatrixserverlib/spec"
)

const (
	startTimeout = 60 * time.Second
	stopTimeout  = 12 * time.Second
)

// Deployment is some homeservers that can reach each other.
type Deployment struct {
	config  *config.Complement
	servers map[string]*server
	users   atomic.Int64
}

type server struct {
	name           string
	directory      string
	clientPort     int
	federationPort int
	process        *exec.Cmd
	ended          chan error
	services       []b.ApplicationService
	tokens         sync.Map // user id -> access token
}

// New starts hs1 and so on, as many as asked for. It fails the test when a server does not come up.
func New(t ct.TestLike, count int, cfg *config.Complement) *Deployment {
	t.Helper()
	servers := make([]b.Homeserver, count)
	for index := range servers {
		servers[index].Name = fmt.Sprintf("hs%d", index+1)
	}
	return NewOf(t, b.Blueprint{Homeservers: servers}, cfg)
}

// NewOf starts the homeservers of a blueprint with their application services; its users are not made.
func NewOf(t ct.TestLike, blueprint b.Blueprint, cfg *config.Complement) *Deployment {
	t.Helper()
	deployment := &Deployment{config: cfg, servers: map[string]*server{}}
	for _, one := range blueprint.Homeservers {
		directory, err := os.MkdirTemp("", "ranvier-conformance-")
		must(t, err)
		deployment.servers[one.Name] = &server{
			name: one.Name, directory: directory, clientPort: freePort(t), federationPort: freePort(t),
			services: one.ApplicationServices,
		}
	}
	for _, one := range deployment.servers {
		deployment.configure(t, one)
		must(t, one.launch())
	}
	for _, one := range deployment.servers {
		must(t, one.waitForAnswer())
	}
	return deployment
}

func (d *Deployment) configure(t ct.TestLike, s *server) {
	certificate, err := d.config.CACertificateBytes()
	must(t, err)
	s.write(t, "ca.pem", certificate)
	d.makeCertificate(t, s)
	var addresses strings.Builder
	for _, other := range d.servers {
		fmt.Fprintf(&addresses, "%q = \"127.0.0.1:%d\"\n", other.name, other.federationPort)
	}
	registrations := s.writeRegistrations(t)
	s.write(t, "ranvier.toml", []byte(fmt.Sprintf(`
server_name = %q
[[listeners]]
bind = "127.0.0.1:%d"
[[listeners]]
bind = "127.0.0.1:%d"
apis = ["federation", "media"]
tls_certificate = "server.pem"
tls_private_key = "server.key"
[registration]
mode = "open"
shared_secret = "complement"
guests = true
min_password_length = 1
[federation]
ca_file = "ca.pem"
allow_private_addresses = ["127.0.0.0/8", "::1/128"]
share_device_names = true
[federation.addresses]
%s
[appservices]
registrations = [%s]
[media]
unauthenticated_downloads = true
[rooms]
default_version = "11"
[rate_limits]
enabled = false
[server_notices]
user = "_server"
`, s.name, s.clientPort, s.federationPort, addresses.String(), registrations)))
}

// writeRegistrations gives the names of the files, as a list of TOML has them.
func (s *server) writeRegistrations(t ct.TestLike) string {
	var files []string
	for index, service := range s.services {
		file := fmt.Sprintf("appservice-%d.yaml", index)
		s.write(t, file, []byte(fmt.Sprintf(`
id: %q
url: %q
as_token: %q
hs_token: %q
sender_localpart: %q
rate_limited: %t
namespaces:
  users: [{exclusive: false, regex: ".*"}]
  aliases: []
  rooms: []
`, service.ID, service.URL, service.ASToken, service.HSToken, service.SenderLocalpart, service.RateLimited)))
		files = append(files, fmt.Sprintf("%q", file))
		s.tokens.Store(fmt.Sprintf("@%s:%s", service.SenderLocalpart, s.name), service.ASToken)
	}
	return strings.Join(files, ", ")
}

func (d *Deployment) makeCertificate(t ct.TestLike, s *server) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: s.name},
		DNSNames:     []string{s.name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, d.config.CACertificate, &key.PublicKey, d.config.CAPrivateKey)
	must(t, err)
	s.write(t, "server.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}))
	s.write(t, "server.key", pem.EncodeToMemory(
		&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
}

func (s *server) write(t ct.TestLike, file string, content []byte) {
	must(t, os.WriteFile(filepath.Join(s.directory, file), content, 0o600))
}

func (s *server) launch() error {
	log, err := os.OpenFile(filepath.Join(s.directory, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.process = exec.Command(os.Getenv("RANVIER"), "serve", "--config", filepath.Join(s.directory, "ranvier.toml"))
	s.process.Stdout, s.process.Stderr = log, log
	// The server goes when the tests are killed.
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.process.Start(); err != nil {
		return err
	}
	s.ended = make(chan error, 1)
	go func(process *exec.Cmd, ended chan<- error) { ended <- process.Wait() }(s.process, s.ended)
	return nil
}

func (s *server) waitForAnswer() error {
	url := s.clientURL() + "/_matrix/client/versions"
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		answer, err := http.Get(url)
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-s.ended:
			s.process = nil
			return fmt.Errorf("%s ended:\n%s", s.name, s.log())
		default:
		}
	}
	return fmt.Errorf("%s does not answer:\n%s", s.name, s.log())
}

func (s *server) stop() error {
	if s.process == nil {
		return nil
	}
	_ = s.process.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-s.ended:
		s.process = nil
		return err
	case <-time.After(stopTimeout):
		s.kill()
		return fmt.Errorf("%s did not stop in time", s.name)
	}
}

func (s *server) kill() {
	if s.process != nil {
		_ = s.process.Process.Kill()
		<-s.ended
		s.process = nil
	}
}

func (s *server) log() string {
	content, _ := os.ReadFile(filepath.Join(s.directory, "log"))
	return string(content)
}

func (s *server) clientURL() string { return fmt.Sprintf("http://127.0.0.1:%d", s.clientPort) }

func (d *Deployment) find(t ct.TestLike, name string) *server {
	t.Helper()
	found, ok := d.servers[name]
	if !ok {
		ct.Fatalf(t, "there is no homeserver %q in this deployment", name)
	}
	return found
}

func (d *Deployment) newClient(t ct.TestLike, s *server) *client.CSAPI {
	return client.NewCSAPI(client.CSAPIOpts{
		BaseURL:          s.clientURL(),
		Client:           client.NewLoggedClient(t, s.name, nil),
		SyncUntilTimeout: 5 * time.Second,
		Debug:            d.config.DebugLoggingEnabled,
	})
}

// GetFullyQualifiedHomeserverName is the name itself.
func (d *Deployment) GetFullyQualifiedHomeserverName(t ct.TestLike, hsName string) spec.ServerName {
	return spec.ServerName(d.find(t, hsName).name)
}

// UnauthenticatedClient speaks to a server without a token.
func (d *Deployment) UnauthenticatedClient(t ct.TestLike, hsName string) *client.CSAPI {
	t.Helper()
	return d.newClient(t, d.find(t, hsName))
}

// Register makes a new user.
func (d *Deployment) Register(t ct.TestLike, hsName string, opts helpers.RegistrationOpts) *client.CSAPI {
	t.Helper()
	s := d.find(t, hsName)
	user := d.newClient(t, s)
	user.Password = opts.Password
	if user.Password == "" {
		user.Password = "complement_meets_min_password_req"
	}
	localpart := fmt.Sprintf("user-%d", d.users.Add(1))
	if opts.LocalpartSuffix != "" {
		localpart += "-" + opts.LocalpartSuffix
	}
	if opts.IsAdmin {
		user.UserID, user.AccessToken, user.DeviceID = user.RegisterSharedSecret(t, localpart, user.Password, true)
	} else {
		user.UserID, user.AccessToken, user.DeviceID = user.RegisterUser(t, localpart, user.Password)
	}
	s.tokens.Store(user.UserID, user.AccessToken)
	return user
}

// Login opens another session of a user.
func (d *Deployment) Login(
	t ct.TestLike, hsName string, existing *client.CSAPI, opts helpers.LoginOpts,
) *client.CSAPI {
	t.Helper()
	localpart, _, err := gomatrixserverlib.SplitID('@', existing.UserID)
	must(t, err)
	user := d.newClient(t, d.find(t, hsName))
	user.Password = existing.Password
	if opts.Password != "" {
		user.Password = opts.Password
	}
	var more []client.LoginOpt
	if opts.DeviceID != "" {
		more = append(more, client.WithDeviceID(opts.DeviceID))
	}
	user.UserID, user.AccessToken, user.DeviceID = user.LoginUser(t, localpart, user.Password, more...)
	return user
}

// AppServiceUser acts as a user that a token is known of.
func (d *Deployment) AppServiceUser(t ct.TestLike, hsName, userID string) *client.CSAPI {
	t.Helper()
	s := d.find(t, hsName)
	user := d.newClient(t, s)
	user.UserID = userID
	if token, ok := s.tokens.Load(userID); ok {
		user.AccessToken = token.(string)
	} else if userID != "" {
		ct.Fatalf(t, "no token is known of %s", userID)
	}
	return user
}

// Restart stops all servers and starts them again.
func (d *Deployment) Restart(t ct.TestLike) error {
	t.Helper()
	for _, s := range d.servers {
		if err := s.stop(); err != nil {
			return err
		}
	}
	for _, s := range d.servers {
		if err := s.launch(); err != nil {
			return err
		}
	}
	for _, s := range d.servers {
		if err := s.waitForAnswer(); err != nil {
			return err
		}
	}
	return nil
}

// StopServer ends a server's process.
func (d *Deployment) StopServer(t ct.TestLike, hsName string) {
	t.Helper()
	must(t, d.find(t, hsName).stop())
}

// StartServer starts what StopServer ended, at the same addresses.
func (d *Deployment) StartServer(t ct.TestLike, hsName string) {
	t.Helper()
	s := d.find(t, hsName)
	must(t, s.launch())
	must(t, s.waitForAnswer())
}

// PauseServer lets a process stand still.
func (d *Deployment) PauseServer(t ct.TestLike, hsName string) {
	t.Helper()
	must(t, d.find(t, hsName).process.Process.Signal(syscall.SIGSTOP))
}

// UnpauseServer lets it go on.
func (d *Deployment) UnpauseServer(t ct.TestLike, hsName string) {
	t.Helper()
	must(t, d.find(t, hsName).process.Process.Signal(syscall.SIGCONT))
}

// ContainerID is the process id: there are no containers.
func (d *Deployment) ContainerID(t ct.TestLike, hsName string) string {
	t.Helper()
	return fmt.Sprint(d.find(t, hsName).process.Process.Pid)
}

// Destroy ends everything; what the servers logged is shown where a test failed.
func (d *Deployment) Destroy(t ct.TestLike) {
	t.Helper()
	for _, s := range d.servers {
		s.kill()
		if log := s.log(); t.Failed() && log != "" {
			t.Logf("log of %s:\n%s", s.name, tail(log, 6000))
		} else if strings.Contains(log, "Traceback") {
			t.Errorf("a traceback in the log of %s:\n%s", s.name, tail(log, 6000))
		}
		_ = os.RemoveAll(s.directory)
	}
}

// GetConfig is Complement's.
func (d *Deployment) GetConfig() *config.Complement { return d.config }

// Network has no name: there is only loopback.
func (d *Deployment) Network() string { return "" }

// RoundTripper reaches the servers by their names, for requests of the federation API.
func (d *Deployment) RoundTripper() http.RoundTripper { return &roundTripper{d} }

type roundTripper struct{ deployment *Deployment }

func (r *roundTripper) RoundTrip(request *http.Request) (*http.Response, error) {
	name := request.URL.Hostname()
	if name == r.deployment.config.HostnameRunningComplement {
		request.URL.Host = net.JoinHostPort("localhost", request.URL.Port())
	} else if s, ok := r.deployment.servers[name]; ok {
		request.URL.Host = fmt.Sprintf("127.0.0.1:%d", s.federationPort)
	} else {
		return nil, fmt.Errorf("there is no homeserver %q", name)
	}
	request.URL.Scheme = "https"
	transport := &http.Transport{TLSClientConfig: &tls.Config{ServerName: name, InsecureSkipVerify: true}}
	return transport.RoundTrip(request)
}

func freePort(t ct.TestLike) int {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

func tail(text string, length int) string {
	if len(text) > length {
		return "…" + text[len(text)-length:]
	}
	return text
}

func must(t ct.TestLike, err error) {
	t.Helper()
	if err != nil {
		ct.Fatalf(t, "deployment: %s", err)
	}
}
