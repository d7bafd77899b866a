from mock_providers.ledger import Ledger, Stats


def test_a_full_ledger_forgets_the_oldest_message_and_its_key() -> None:
    ledger = Ledger("generic_sms", limit=2)
    for key in ("a", None, "c", "d"):
        ledger.accept(f"id-{key}", b"{}", idempotency_key=key)
    assert [message.id for message in ledger.messages()] == ["id-c", "id-d"]
    assert ledger.find("a") is None
    assert ledger.find("d") is not None
    assert ledger.stats == Stats(accepted=4)


def test_a_forgotten_message_is_not_replaced() -> None:
    ledger = Ledger("generic_sms")
    message = ledger.accept("id", b"{}")
    ledger.clear()
    ledger.replace(message)
    assert ledger.messages() == []


def test_statistics_add_up() -> None:
    total = Stats(accepted=1, refused=2) + Stats(accepted=3, repeated_keys=4)
    assert total == Stats(accepted=4, refused=2, repeated_keys=4)
    assert total.requests == 10
