"""The order in which the messages of each conversation reached the provider."""

from dev.chaos.account import Findings
from dev.chaos.load import CHANNELS, Item, by_conversation
from dev.chaos.scene import Scene

_SHOWN = 5


def check_exact(scene: Scene, findings: Findings) -> None:
    """Expect that every conversation was sent in the order of acceptance, without any exception."""
    ignored = _check(scene, findings)
    scene.expect(ignored == 0, f"{ignored} messages were retried or deferred although nothing failed")


def check(scene: Scene, findings: Findings) -> None:
    """Expect that every conversation was sent in the order of acceptance, as far as that is guaranteed.

    A message that was retried or deferred has given up its place. One that was accepted around the time of a
    fault may have been in a process that could not send it, and is delivered again after those behind it.
    """
    _check(scene, findings)


def _check(scene: Scene, findings: Findings) -> int:
    """Check the order, and return the number of messages to which it does not apply."""
    conversations = compared = ignored = 0
    wrong = []
    for channel in CHANNELS:
        place = {sent.name: number for number, sent in reversed([*enumerate(findings.sent.get(channel, ()))])}
        sent = [item for item in scene.load.record.sends if item.channel == channel and item.name in place]
        items = [item for item in sent if item.id not in findings.moved and not _is_excused(scene, item)]
        ignored += len(sent) - len(items)
        compared += len(items)
        for conversation in by_conversation(items):
            conversations += 1
            places = [place[item.name] for item in conversation]
            if places != sorted(places):
                wrong.append(conversation[0].place[0])
    scene.expect(not wrong, f"{len(wrong)} conversations were sent out of order: {', '.join(wrong[:_SHOWN])}")
    scene.notes.append(
        f"{compared} messages of {conversations} conversations were compared with the order of acceptance,"
        f" {ignored} were not"
    )
    return ignored


def _is_excused(scene: Scene, item: Item) -> bool:
    at = item.accepted_at
    return at is not None and any(start <= at <= end for start, end in scene.disorder)
