"""The page at `/`, as its users see it."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Locator, Page, expect

from tests.e2e.stack import Stack, running_stack
from tests.page.conftest import SETTINGS, Tab
from tests.stand_in import Answer, StandIn, standing_in

OURS, CONTACT = "+12016661234", "+18045551234"
VIEWS = ["inbox", "operations", "dead-letters", "suppressions", "webhooks", "api-keys", "playground"]


async def send_first_message(page: Page, body: str) -> None:
    await page.get_by_role("button", name="New message").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("From").fill(OURS)
    await dialog.get_by_label(re.compile("^To")).fill(CONTACT)
    await dialog.get_by_label("Message", exact=True).fill(body)
    await dialog.get_by_role("button", name="Send", exact=True).click()
    await expect(dialog).to_be_hidden()


def bubble(page: Page, text: str) -> Locator:
    return page.locator(".bubble", has_text=text)


async def test_a_conversation_grows_live_and_after_a_lost_connection(stack: Stack, tab: Tab) -> None:
    page = tab.page
    await tab.open("inbox")
    await send_first_message(page, "Your order is ready.")
    await expect(bubble(page, "Your order is ready.")).to_contain_text("sent")

    await stack.sms.inbound(**{"from": CONTACT, "to": OURS, "body": "Thank you!"})
    await expect(bubble(page, "Thank you!")).to_be_visible()
    await expect(page.locator(".rows li", has_text="Thank you!")).to_be_visible()

    await stack.processes["gateway"].end()
    await expect(page.get_by_role("status")).to_contain_text("Connection lost")
    await stack.start("gateway")
    await stack.sms.inbound(**{"from": CONTACT, "to": OURS, "body": "When do you close?"})
    await expect(bubble(page, "When do you close?")).to_be_visible()
    await expect(page.get_by_role("status")).to_contain_text("Live")

    await page.get_by_label("Message", exact=True).fill("At six.")
    await expect(page.get_by_text("7/160 · 1 segment · GSM-7")).to_be_visible()
    await page.get_by_role("button", name="Send", exact=True).click()
    answer = bubble(page, "At six.")
    await expect(answer).to_contain_text("sent")
    await answer.get_by_role("button", name="Details").click()
    await expect(answer.get_by_role("row", name="accepted")).to_be_visible()
    await expect(answer.get_by_role("row", name="sent")).to_contain_text("generic_sms")
    assert not tab.errors


async def test_a_scheduled_message_can_be_cancelled(tab: Tab) -> None:
    page = tab.page
    await tab.open("inbox")
    await send_first_message(page, "First")
    await expect(bubble(page, "First")).to_contain_text("sent")
    await page.get_by_label("Message", exact=True).fill("Tomorrow")
    await page.get_by_role("button", name="Attach or schedule").click()
    tomorrow = await page.evaluate(
        "() => { const date = new Date(Date.now() + 864e5 - new Date().getTimezoneOffset() * 6e4);"
        " return date.toISOString().slice(0, 16); }"
    )
    await page.get_by_label("Send later").fill(tomorrow)
    await page.get_by_role("button", name="Schedule", exact=True).click()
    scheduled = bubble(page, "Tomorrow")
    await expect(scheduled).to_contain_text("scheduled")
    await scheduled.get_by_role("button", name="Cancel").click()
    await expect(scheduled).to_contain_text("canceled")
    # The button that had the focus is gone.
    await expect(page.get_by_role("group", name="Messages")).to_be_focused()


async def test_a_failure_is_shown_and_replayed_and_an_opt_out_is_respected(stack: Stack, tab: Tab) -> None:
    page = tab.page
    await tab.open("playground")
    await page.get_by_role("button", name="Refuse").first.click()
    await expect(page.get_by_role("button", name="Refuse").first).to_have_attribute("aria-pressed", "true")
    await page.get_by_role("link", name="Inbox").click()
    await send_first_message(page, "Refused at first")
    await expect(bubble(page, "Refused at first")).to_contain_text("failed")

    await page.get_by_role("link", name="Dead letters").click()
    await page.get_by_role("button", name="Open").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("Refused at first")
    await dialog.get_by_role("button", name="Replay").click()
    await expect(page.get_by_text("No dead letters")).to_be_visible()
    await page.get_by_role("link", name="Inbox").click()
    await page.locator(".rows a").first.click()
    await expect(bubble(page, "Refused at first")).to_contain_text("sent")

    await stack.sms.inbound(**{"from": CONTACT, "to": OURS, "body": "STOP"})
    await expect(bubble(page, "STOP")).to_be_visible()
    await page.get_by_label("Message", exact=True).fill("One more thing")
    await page.get_by_role("button", name="Send", exact=True).click()
    await expect(page.get_by_role("alert")).to_contain_text("opted out")
    await page.get_by_role("link", name="Suppressions").click()
    await expect(page.get_by_role("row", name=CONTACT)).to_contain_text("STOP")
    page.on("dialog", lambda dialog: dialog.accept())
    await page.get_by_role("button", name="Lift").click()
    await expect(page.get_by_text("No recipient has opted out.")).to_be_visible()
    await page.get_by_label("Address").fill("1234")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("This address is not suppressed.")).to_be_visible()


HOSTILE_MAIL = """
<script>window.top.hacked = 1</script><img src="{stranger}/pixel.png" onerror="window.top.hacked = 2">
<link rel="stylesheet" href="{stranger}/style.css"><iframe src="{stranger}/frame"></iframe>
<form action="{stranger}/form"><button>Press</button></form><p>Hello from a stranger</p>
<meta http-equiv="refresh" content="0; url={stranger}/away">
"""


@pytest.fixture
async def stranger() -> AsyncIterator[StandIn]:
    async with standing_in() as stranger:
        yield stranger


async def test_hostile_content_executes_nothing_and_requests_nothing(
    stack: Stack, tab: Tab, stranger: StandIn
) -> None:
    name = '"><img src=x onerror=hacked=3>'
    await stack.email.inbound(
        **{
            "from": f'"{name.replace(chr(34), chr(92) + chr(34))}" <stranger@example.org>',
            "to": "office@example.com",
            "subject": "<script>hacked = 4</script>",
            "body": HOSTILE_MAIL.replace("{stranger}", stranger.url),
        }
    )
    await stack.sms.inbound(**{"from": CONTACT, "to": OURS, "body": "<img src=x onerror=hacked=5>"})
    page = tab.page
    await tab.open("inbox")
    await page.locator(".rows a", has_text="<script>hacked = 4</script>").click()
    await expect(page.frame_locator(".bubble iframe").get_by_text("Hello from a stranger")).to_be_visible()
    await page.locator(".rows a", has_text="<img src=x onerror=hacked=5>").click()
    await expect(bubble(page, "<img src=x onerror=hacked=5>")).to_be_visible()
    assert await page.evaluate("typeof hacked") == "undefined"
    assert stranger.requests == []
    assert not tab.errors


_ROW = 72  # pixels
_HEIGHT = """known => {
    const height = document.querySelector('.rows ol').offsetHeight;
    return height > known && height;
}"""


def row_of(page: Page, number: int) -> Locator:
    return page.locator(".rows strong", has_text=re.compile(rf"^{number}@"))


async def test_only_the_conversations_in_view_are_rendered(tab: Tab, database_url: str) -> None:
    count = 10_000
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    try:
        await connection.execute(_CONVERSATIONS, count)
    finally:
        await connection.close()
    page = tab.page
    await tab.open("inbox")
    rows = page.locator(".rows li")
    await expect(rows.first).to_be_visible()
    most, height = 0, 0
    while height < count * _ROW:
        await page.locator(".rows").evaluate("element => element.scrollTop = element.scrollHeight")
        # By time, since a browser may draw no frames of a page that nobody sees.
        grown = await page.wait_for_function(_HEIGHT, arg=height, polling=50)
        height = await grown.json_value()
        most = max(most, await rows.count())
    await page.locator(".rows").evaluate("element => element.scrollTop = element.scrollHeight")
    await expect(row_of(page, count)).to_be_visible()
    assert most < 60
    await page.locator(".rows").evaluate("element => element.scrollTop = 0")
    await expect(row_of(page, 1)).to_be_visible()


# The first conversation is the newest one.
_CONVERSATIONS = """
    WITH ours AS (
        INSERT INTO participants (address, channel) VALUES ('office@example.com', 'email') RETURNING id
    ), theirs AS (
        INSERT INTO participants (address, channel)
        SELECT number || '@example.org', 'email' FROM generate_series(1, $1) AS number RETURNING id, address
    ), conversations AS (
        INSERT INTO conversations (key, channel, message_count, last_message_at)
        SELECT gen_random_uuid(), 'email', 1, now() - number * interval '1 second'
        FROM generate_series(1, $1) AS number RETURNING id, last_message_at
    ), pairs AS (
        SELECT conversation.id AS conversation_id, participant.id AS participant_id
        FROM (SELECT id, row_number() OVER (ORDER BY last_message_at DESC) AS n FROM conversations)
            AS conversation
        JOIN theirs AS participant ON split_part(participant.address, '@', 1)::int = conversation.n
    )
    INSERT INTO conversation_participants (conversation_id, participant_id)
    SELECT conversation_id, participant_id FROM pairs
    UNION ALL SELECT conversation_id, ours.id FROM pairs, ours
"""


_AXE_RUN = """async rules => {
    // A change of the media takes effect with the next frame.
    await new Promise(requestAnimationFrame);
    const options = { resultTypes: ['violations'], ...(rules && { runOnly: rules }) };
    const { violations } = await axe.run(document, options);
    return violations.map(({ id, nodes }) => [id, ...nodes.map(({ html }) => html.slice(0, 120))]);
}"""


class Inspector:
    """Runs axe-core in a page, wide and narrow, light and dark.

    Attributes:
        violations: what it has found.
    """

    def __init__(self, page: Page) -> None:
        self._page = page
        self.violations: list[object] = []

    async def inspect(self, state: str) -> None:
        """Inspect the page in its present state."""
        await expect(self._page.locator("main :is(h1, h2):visible").first).to_be_visible()
        await expect(self._page.locator(".loading")).to_have_count(0)
        if await self._page.evaluate("typeof axe") == "undefined":
            await self._page.evaluate(Axe().axe_script)
        for width in (1280, 390):
            await self._page.set_viewport_size({"width": width, "height": 800})
            # Only the colors depend on the scheme.
            await self._page.emulate_media(color_scheme="light")
            found = await self._page.evaluate(_AXE_RUN)
            await self._page.emulate_media(color_scheme="dark")
            found += await self._page.evaluate(_AXE_RUN, ["color-contrast"])
            self.violations += [(state, width, *each) for each in found]
        await self._page.set_viewport_size({"width": 1280, "height": 800})


async def test_a_list_is_as_long_as_before_when_it_is_loaded_again(stack: Stack, tab: Tab) -> None:
    async def suppress(number: int) -> None:
        url = f"{stack.gateway_url}/api/suppressions/%2B1804555{number:04}"
        response = await stack.client.put(url, json={"reason": "asked"})
        assert response.is_success, response.text

    await asyncio.gather(*map(suppress, range(60)))
    await tab.open("suppressions")
    rows = tab.page.locator("tbody tr")
    await expect(rows).to_have_count(50)
    await tab.page.get_by_role("button", name="Load more").click()
    await expect(rows).to_have_count(60)

    await suppress(60)
    await expect(rows).to_have_count(61)
    await tab.page.get_by_label("Channel").select_option("sms")
    await expect(rows).to_have_count(50)
    assert not tab.errors


async def test_no_view_violates_a_rule_of_accessibility(stack: Stack, tab: Tab) -> None:
    sent = await stack.send(body="Hello")
    await stack.message_becomes(sent["id"], "sent")
    await stack.sms.behave(status=400, times=1)
    failed = await stack.send(body="Refused")
    await stack.message_becomes(failed["id"], "failed")
    await stack.email.inbound(body="<p>Hello</p>" * 40)
    await stack.client.put(f"{stack.gateway_url}/api/suppressions/%2B18045559999", json={"reason": "asked"})
    await stack.post(
        "/api/webhook-endpoints", {"url": "http://127.0.0.1:9/", "event_types": ["message.sent"]}
    )
    page, inspector = tab.page, Inspector(tab.page)
    for view in VIEWS:
        await tab.open(view)
        await inspector.inspect(view)

    for view, openers in {
        f"inbox/{sent['conversation_key']}": ["Details", "Attach or schedule", "New message"],
        "dead-letters": ["Open", "Discard"],
        "suppressions": ["Suppress an address"],
    }.items():
        await tab.open(view)
        for opener in openers:
            await page.get_by_role("button", name=opener, exact=True).last.click()
        await inspector.inspect(f"{view}: {openers}")
        for _ in range(await page.locator("dialog").count()):
            await page.keyboard.press("Escape")
    await tab.open("inbox")
    await page.locator(".rows a", has_text="E-mail").click()
    await page.get_by_role("button", name="Show all").click()
    await inspector.inspect("an e-mail")
    await tab.open("webhooks")
    for opener in ("Add an endpoint", "Attempts", "Recover", "Rotate secret"):
        await page.get_by_role("button", name=opener).click()
        await inspector.inspect(opener)
        await page.keyboard.press("Escape")
    assert not tab.errors
    assert inspector.violations == []


async def press_until(page: Page, key: str, wanted: Locator, most: int = 40) -> None:
    """Press a key until an element has the focus, which must be visible."""
    for _ in range(most):
        await page.keyboard.press(key)
        if await wanted.evaluate("element => element === document.activeElement"):
            style = await wanted.evaluate("element => getComputedStyle(element).outlineStyle")
            assert style != "none"
            return
    raise AssertionError(f"{key} does not lead to {wanted}")


async def test_a_reply_and_a_replay_need_only_the_keyboard(stack: Stack, tab: Tab) -> None:
    await stack.sms.behave(status=400, times=1)
    failed = await stack.send(body="Refused at first")
    await stack.message_becomes(failed["id"], "failed")
    await stack.sms.inbound(**{"from": "+18045550001", "to": OURS, "body": "Are you open?"})
    page = tab.page
    await tab.open("inbox")
    newest = page.locator(".rows a", has_text="Are you open?")
    await expect(newest).to_be_visible()
    await press_until(page, "Tab", page.get_by_role("button", name="New message"))
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("button", name="New message")).to_be_focused()

    await press_until(page, "Tab", newest)
    await page.keyboard.press("ArrowDown")
    await expect(page.locator(".rows a", has_text="Refused at first")).to_be_focused()
    await page.keyboard.press("ArrowUp")
    await page.keyboard.press("Enter")
    await expect(bubble(page, "Are you open?")).to_be_visible()
    message = page.get_by_label("Message", exact=True)
    await press_until(page, "Tab", message)
    await page.keyboard.type("Until six.")
    await press_until(page, "Tab", page.get_by_role("button", name="Send", exact=True))
    await page.keyboard.press("Space")
    await expect(bubble(page, "Until six.")).to_contain_text("sent")
    await expect(message).to_be_focused()
    await stack.sms.inbound(**{"from": "+18045550001", "to": OURS, "body": "Thank you!"})
    await expect(page.locator("[aria-live]")).to_have_text("New message from +18045550001")

    await press_until(page, "Shift+Tab", page.get_by_role("link", name="Dead letters"))
    await page.keyboard.press("Enter")
    opener = page.get_by_role("button", name="Open", exact=True)
    await expect(opener).to_be_visible()
    await press_until(page, "Tab", opener)
    await page.keyboard.press("Enter")
    await press_until(page, "Tab", page.get_by_role("dialog").get_by_role("button", name="Replay"))
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("No dead letters")).to_be_visible()
    await expect(page.get_by_role("main")).to_be_focused()
    await stack.message_becomes(failed["id"], "sent")
    assert not tab.errors


async def test_a_webhook_endpoint_is_managed(
    tmp_path: Path,
    database_url: str,
    nats_url: str,
    stranger: StandIn,
    new_tab: Callable[[Stack], Awaitable[Tab]],
) -> None:
    async with running_stack(
        tmp_path,
        database_url=database_url,
        nats_url=nats_url,
        settings=SETTINGS,
        services=("gateway", "ingest", "notifier"),
    ) as stack:
        tab = await new_tab(stack)
        page, dialog = tab.page, tab.page.get_by_role("dialog")
        await tab.open("webhooks")
        await page.get_by_role("button", name="Add an endpoint").click()
        await dialog.get_by_label("URL").fill(f"{stranger.url}/hooks")
        await dialog.get_by_label("message.failed").check()
        await dialog.get_by_role("button", name="Add", exact=True).click()
        first_secret = await dialog.locator("pre").inner_text()
        await dialog.get_by_role("button", name="Done").click()

        await page.get_by_role("button", name="Edit").click()
        await dialog.get_by_label("message.received").check()
        await dialog.get_by_label("message.failed").uncheck()
        await dialog.get_by_label("E-mail", exact=True).check()
        await dialog.get_by_label("Your addresses").fill("(201) 666-1234, office@example.com")
        await dialog.get_by_label("Description").fill("Support desk")
        await dialog.get_by_role("button", name="Save").click()
        endpoint = page.get_by_role("article")
        for shown in ("message.received", "E-mail", "+12016661234, office@example.com", "Support desk"):
            await expect(endpoint).to_contain_text(shown)
        await expect(endpoint).not_to_contain_text("message.failed")

        stranger.answer = lambda _: Answer(500, body=b"broken")
        await endpoint.get_by_role("button", name="Test").click()
        await expect(endpoint.get_by_role("status")).to_contain_text("Test: 500")
        await expect(endpoint.get_by_role("status")).to_contain_text("broken")
        await expect(endpoint.get_by_role("button", name="Test")).to_be_focused()

        await endpoint.get_by_role("button", name="Disable").click()
        await expect(endpoint).to_contain_text("requested")
        await expect(endpoint.get_by_role("button", name="Test")).to_be_disabled()
        await endpoint.get_by_role("button", name="Enable").click()
        await expect(endpoint).to_contain_text("enabled")

        await endpoint.get_by_role("button", name="Rotate secret").click()
        await dialog.get_by_role("button", name="Rotate secret").click()
        await expect(dialog.locator("pre")).to_contain_text("whsec_")
        assert await dialog.locator("pre").inner_text() != first_secret
        await dialog.get_by_role("button", name="Done").click()
        await expect(endpoint).to_contain_text("also signed with the former one")

        await endpoint.get_by_role("button", name="Recover").click()
        await dialog.get_by_label("Since").fill("2020-01-01T00:00")
        await dialog.get_by_role("button", name="Recover").click()
        await expect(dialog.get_by_role("status")).to_contain_text("0 events are about to be sent")
        assert not tab.errors


async def test_keys_are_asked_for_and_readers_see_no_buttons(
    tmp_path: Path, database_url: str, nats_url: str, new_tab: Callable[[Stack], Awaitable[Tab]]
) -> None:
    settings = {"API_KEYS": "shop:key-of-the-shop-1", "READ_ONLY_API_KEYS": "wall:key-of-the-wall-1"}
    async with running_stack(
        tmp_path, database_url=database_url, nats_url=nats_url, settings=settings
    ) as stack:
        tab = await new_tab(stack)
        page = tab.page
        await tab.open("inbox")
        for key in ("wrong", "key-of-the-wall-1"):
            await page.get_by_label("API key").fill(key)
            await page.get_by_role("button", name="Continue").click()
            if key == "wrong":
                await expect(page.get_by_role("alert")).to_contain_text("not valid")
        await expect(page.get_by_role("heading", name="Inbox")).to_be_visible()
        await expect(page.get_by_text("Send a message, or simulate")).to_be_visible()
        await expect(page.get_by_role("alert")).to_have_count(0)
        await expect(page.get_by_role("button", name="New message")).to_have_count(0)
        refused = await page.evaluate(
            "() => fetch('api/messages/sms', {method: 'POST', headers: {Authorization: 'Bearer "
            "key-of-the-wall-1', 'Content-Type': 'application/json'}, body: '{}'})"
            ".then((response) => response.status)"
        )
        assert refused == 403
        assert await page.evaluate("Object.values(sessionStorage)") == ["key-of-the-wall-1"]
        assert await page.evaluate("localStorage.length") == 0
        assert await page.context.cookies() == []
        await page.get_by_role("button", name="Sign out").click()
        await page.get_by_label("API key").fill("key-of-the-shop-1")
        await page.get_by_role("button", name="Continue").click()
        await expect(page.get_by_role("button", name="New message")).to_be_visible()


async def test_pages_request_nothing_from_other_hosts(stack: Stack, tab: Tab) -> None:
    for path in ("/", "/docs"):
        await tab.page.goto(f"{stack.gateway_url}{path}")
        await expect(tab.page.get_by_role("heading").first).to_be_visible()
    assert tab.foreign_requests() == []
    assert not tab.errors
