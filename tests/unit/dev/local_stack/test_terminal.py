import os

from dev.local_stack.terminal import Terminal


def written(terminal: Terminal, reader: int) -> str:
    terminal.close()
    return os.read(reader, 65_536).decode()


def test_lines_carry_the_name_of_who_said_them() -> None:
    reader, writer = os.pipe()
    terminal = Terminal(writer, names=["sender", "gateway"])
    terminal.line("sender", "hello")
    terminal.line("gateway", "there")
    assert written(terminal, reader) == "sender  | hello\ngateway | there\n"


def test_names_have_colours_where_there_are_any() -> None:
    reader, writer = os.pipe()
    terminal = Terminal(writer, names=["sender"], colour=True)
    terminal.line("sender", "hello")
    assert written(terminal, reader) == "\x1b[36msender |\x1b[0m hello\n"


def test_nobody_who_reads_is_no_trouble() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    terminal = Terminal(writer)
    terminal.show("to nobody")
    terminal.close()


def test_a_reader_who_sleeps_holds_up_nobody() -> None:
    reader, writer = os.pipe()
    terminal = Terminal(writer)
    for number in range(20_000):
        terminal.show(f"{number} {'x' * 100}")
    terminal.close(seconds=0)
    os.close(reader)
