"""End-to-end encryption, as far as a server has a part in it: public keys, signatures, backups, and messages from
device to device."""

from ranvier.app.compose.foundation import Composed, Foundation
from ranvier.http.client.cross_signing import CrossSigningEndpoints
from ranvier.http.client.dehydrated_device import DehydratedDeviceEndpoints
from ranvier.http.client.key_backup import KeyBackupKeys, KeyBackupVersions
from ranvier.http.client.keys import KeyEndpoints
from ranvier.http.client.to_device import ToDeviceEndpoints
from ranvier.services.accounts.uia import UserInteractive
from ranvier.services.devices.claims import KeyClaims
from ranvier.services.devices.cross_signing import CrossSigning
from ranvier.services.devices.dehydrated import DehydratedDevices
from ranvier.services.devices.device_lists import DeviceListChanges
from ranvier.services.devices.key_backup import KeyBackups
from ranvier.services.devices.key_signatures import KeySignatures
from ranvier.services.devices.key_upload import KeyUploads
from ranvier.services.devices.keys import Keys
from ranvier.services.devices.list_requests import BringLists
from ranvier.services.devices.remote import RemoteKeyServers
from ranvier.services.devices.sweeping import sweep_devices
from ranvier.services.devices.to_device import ToDevice
from ranvier.services.sweeping import Sweeper


def compose_encryption(
    foundation: Foundation, uia: UserInteractive, remote: RemoteKeyServers, bring_lists: BringLists
) -> Composed:
    """`remote` asks other servers for keys of their users; `bring_lists` for lists of devices that are kept."""
    ports, interner = foundation.ports, foundation.interner
    db, clock = ports.db, ports.clock
    backups = KeyBackups(db)
    return Composed(
        endpoints=[
            KeyEndpoints(
                KeyUploads(db),
                Keys(db, interner, clock, remote, bring_lists),
                KeyClaims(db, interner, clock, remote),
                DeviceListChanges(db, interner),
            ),
            CrossSigningEndpoints(CrossSigning(db, clock, uia), KeySignatures(db, interner, clock, remote)),
            ToDeviceEndpoints(ToDevice(db, interner, clock, ports.randomness)),
            KeyBackupVersions(backups),
            KeyBackupKeys(backups),
            DehydratedDeviceEndpoints(DehydratedDevices(db, clock)),
        ],
        workers=[Sweeper("messages from device to device", db, clock, sweep_devices)],
    )
