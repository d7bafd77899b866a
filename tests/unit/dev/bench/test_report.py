from dev.bench.report import Table, costs_table, percentile


def test_a_table_is_markdown_that_a_document_can_show() -> None:
    table = Table("Sizes, µs", ["", "a", "b"], [["one", 1_234.5, None], ["two", 0.25, "3.50"]])
    assert table.markdown() == (
        "**Sizes, µs**\n\n|  | a | b |\n| --- | --: | --: |\n| one | 1,234 |  |\n| two | 0.2 | 3.50 |"
    )


def test_costs_are_shown_in_the_order_of_the_columns_with_their_sum() -> None:
    table = costs_table("µs", ["nats-server", "gateway"], {"accepting": {"gateway": 30, "nats-server": 12}})
    assert table.columns == ["", "nats-server", "gateway", "total"]
    assert table.rows == [["accepting", 12, 30, 42]]


def test_a_process_that_is_not_involved_has_no_figure() -> None:
    table = costs_table("µs", ["gateway", "sender"], {"accepting": {"gateway": 30}})
    assert table.rows == [["accepting", 30, None, 30]]


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert percentile(values, 0.5) == 51
    assert percentile(values, 0.99) == 100
    assert percentile([7.0], 0.99) == 7
