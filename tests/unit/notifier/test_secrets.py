import pytest

from shared.endpoint_secrets import SecretCipher, UndecryptableSecretError, new_secret

OLD, NEW = "the former key of the service", "the current key of the service"


def test_keys_can_be_rotated() -> None:
    secret = new_secret()
    former = SecretCipher.parse(OLD).encrypt(secret)

    assert SecretCipher.parse(f"{NEW}, {OLD}").decrypt(former) == secret
    with pytest.raises(UndecryptableSecretError):
        SecretCipher.parse(NEW).decrypt(former)


def test_a_secret_is_not_stored_in_the_clear() -> None:
    secret = new_secret()
    assert secret.removeprefix("whsec_") not in SecretCipher.parse(NEW).encrypt(secret)


@pytest.mark.parametrize("text", ["", " , ", "short", f"{NEW},short"])
def test_short_keys_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="entr") as caught:
        SecretCipher.parse(text)
    assert "short" not in str(caught.value).split()
