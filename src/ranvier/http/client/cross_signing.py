"""Cross-signing keys and signatures. Spec: client-server API, "Cross-signing"."""

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.identifiers import parse_user_id
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request, describe_mismatch
from ranvier.services.devices.cross_signing import CrossSigning, CrossSigningUpload
from ranvier.services.devices.key_signatures import KeySignatures, SignatureFailures


class SignaturesAnswer(msgspec.Struct, frozen=True):
    failures: SignatureFailures


class CrossSigningEndpoints:
    """The endpoints below /keys that are for cross-signing."""

    def __init__(self, cross_signing: CrossSigning, signatures: KeySignatures) -> None:
        self._cross_signing = cross_signing
        self._signatures = signatures

    @endpoint(
        "POST",
        "/_matrix/client/v3/keys/device_signing/upload",
        # COMPAT: what clients used before v1.1.
        "/_matrix/client/unstable/keys/device_signing/upload",
        operation="uploadCrossSigningKeys",
        rate=Rate.WRITE,
    )
    async def upload_cross_signing_keys(self, request: Request) -> dict[str, object]:
        await self._cross_signing.upload(request.requester, request.body(CrossSigningUpload))
        return {}

    @endpoint(
        "POST",
        "/_matrix/client/v3/keys/signatures/upload",
        "/_matrix/client/unstable/keys/signatures/upload",
        operation="uploadCrossSigningSignatures",
        rate=Rate.WRITE,
    )
    async def upload_cross_signing_signatures(self, request: Request) -> SignaturesAnswer:
        try:
            body = msgspec.convert(request.json(), dict[str, dict[str, JsonObject]])
        except msgspec.ValidationError as error:
            raise describe_mismatch(error) from error
        signed = {parse_user_id(user_id): keys for user_id, keys in body.items()}
        return SignaturesAnswer(await self._signatures.upload(request.requester, signed))
