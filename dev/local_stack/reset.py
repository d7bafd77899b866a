"""`make reset`: delete the data that `make run` keeps."""

import sys

from dev.local_stack.configuration import Configuration
from dev.local_stack.data_folder import contents, delete_contents, is_in_use
from dev.local_stack.errors import StackError


def reset(configuration: Configuration, *, is_confirmed: bool) -> int:
    """Delete the contents of the data folder.

    Args:
        configuration: names the data folder.
        is_confirmed: do not ask.

    Raises:
        StackError: the data is in use or cannot be deleted, or the answer is no.
    """
    folder = configuration.data_folder
    if not configuration.owns_servers:
        print("Your own servers, at DATABASE_URL and NATS_URL, keep their data.")
    if is_in_use(folder):
        raise StackError(f"the stack is running with the data in {folder}: stop it first")
    if not contents(folder):
        print(f"{folder} is empty.")
        return 0
    if not is_confirmed and not _asks(f"Delete everything in {folder}? [y/N] "):
        raise StackError("nothing was deleted; YES=1 skips the question")
    delete_contents(folder)
    print(f"Deleted everything in {folder}.")
    return 0


def _asks(question: str) -> bool:
    if not sys.stdin.isatty():
        return False
    return input(question).strip().lower() in {"y", "yes"}
