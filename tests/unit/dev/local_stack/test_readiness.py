import pytest

from dev.local_stack.readiness import NotReadyError, answers_jetstream, answers_sql, place


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql+asyncpg://u:p@db.example:6000/x", "db.example:6000"),
        ("postgresql://u:p@db.example/x", "db.example:5432"),
        ("nats://[::1]:4222", "::1:4222"),
        ("postgresql://u:pa/ss@db/x", "an unreadable address"),
        ("nonsense", "localhost:5432"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, expected: str) -> None:
    assert place(url, 5432) == expected


@pytest.mark.parametrize("url", ["hunter2", "postgresql://u:hunter2/x@db/y", "mysql://u:hunter2@db/y"])
async def test_an_invalid_url_of_postgresql_is_not_repeated(url: str) -> None:
    with pytest.raises(NotReadyError) as raised:
        await answers_sql(url)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("urls", ["", " , ", "nats://u:hunter2@["])
async def test_an_invalid_url_of_nats_is_not_repeated(urls: str) -> None:
    with pytest.raises(NotReadyError) as raised:
        await answers_jetstream(urls)
    assert "hunter2" not in str(raised.value)
