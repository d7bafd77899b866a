import os

from dev.local_stack.terminal import Terminal

ERASE = "\r\x1b[K"


def written(terminal: Terminal, reader: int) -> str:
    terminal.close()
    return os.read(reader, 65_536).decode()


def test_lines_begin_with_the_name_of_the_process() -> None:
    reader, writer = os.pipe()
    terminal = Terminal(writer, names=["sender", "gateway"])
    terminal.line("sender", "hello")
    terminal.line("gateway", "there")
    assert written(terminal, reader) == "sender  | hello\ngateway | there\n"


def test_names_have_colours_on_a_terminal() -> None:
    reader, writer = os.pipe()
    terminal = Terminal(writer, names=["sender"], colour=True)
    terminal.line("sender", "hello")
    assert written(terminal, reader) == "\x1b[36msender |\x1b[0m hello\n"


def test_a_closed_output_is_ignored() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    terminal = Terminal(writer)
    terminal.show("lost")
    terminal.close()


def test_a_reader_that_does_not_read_blocks_nothing() -> None:
    reader, writer = os.pipe()
    terminal = Terminal(writer)
    for number in range(20_000):
        terminal.show(f"{number} {'x' * 100}")
    terminal.close(seconds=0)
    os.close(reader)


def test_lines_of_processes_can_be_kept_back() -> None:
    reader, writer = os.pipe()
    terminal = Terminal(writer, names=["sender"])
    terminal.hold()
    terminal.line("sender", "first")
    terminal.show("shown at once")
    terminal.release()
    terminal.line("sender", "second")
    assert written(terminal, reader) == "shown at once\nsender | first\nsender | second\n"


def test_a_status_stays_below_everything_else() -> None:
    reader, writer = os.pipe()
    terminal = Terminal(writer)
    terminal.set_status("waiting")
    terminal.show("ready")
    terminal.set_status("waiting for more")
    assert written(terminal, reader) == (
        "waiting" + ERASE + "ready\nwaiting" + ERASE + "waiting for more" + ERASE
    )


def test_a_status_fits_into_one_line() -> None:
    reader, writer = os.pipe()
    terminal = Terminal(writer)
    terminal.set_status("x" * 200)
    assert written(terminal, reader) == "x" * 79 + ERASE
