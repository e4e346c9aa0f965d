"""Tables: exact text, and sentences that say what the numbers say."""

from __future__ import annotations

import pytest

from underpar.bits import LN2, Score
from underpar.errors import DataError
from underpar.recipe.schema import Recipe
from underpar.report.compressors import Row
from underpar.report.record import ArtifactFacts, Record
from underpar.report.tables import comparison_table, display_width, render, stage_table, verdict

N = 1_000_000


def score(bpb: float, n_bytes: int = N) -> Score:
    return Score(nats=bpb * LN2 * n_bytes, tokens=n_bytes // 4, bytes=n_bytes, coverage=1.0)


def row(name: str, alone: float, known: float | None) -> Row:
    extra = None if known is None else round(known * N / 8)
    return Row(name, round(alone * N / 8), extra, 1.0, None, N)


ROWS = [row("gzip", 2.9, 2.8), row("xz", 2.4, 2.0), row("zpaq", 1.9, 1.5)]


@pytest.fixture(scope="module")
def bare() -> Record:
    return Record.start(Recipe(name="toy"))


def packed(record: Record, file_bytes: int = 2_000_000) -> Record:
    return record.with_artifact(
        ArtifactFacts(
            file_bytes=file_bytes,
            code_bytes=100_000,
            total_bytes=file_bytes + 100_000,
            budget_bytes=16_000_000,
            sha256="00" * 32,
        )
    )


def test_columns_line_up() -> None:
    text = render(["name", "bpb"], [["gzip", "2.892"], ["naïve café", None], ["日本", "1.5"]])
    assert text == "\n".join(
        [
            "name       │   bpb",
            "───────────┼──────",
            "gzip       │ 2.892",
            "naïve café │     –",
            "日本       │   1.5",
        ]
    )


def test_width_is_what_a_terminal_shows() -> None:
    assert display_width("cafe\u0301") == 4
    assert display_width("日本") == 4
    assert display_width("–") == 1


def test_markdown_is_the_same_table() -> None:
    text = render(["a", "b"], [["x|y", 1]], markdown=True)
    assert text == "| a    |  b |\n| ---- | -: |\n| x\\|y |  1 |"


def test_alignment_can_be_chosen_and_rows_must_fit() -> None:
    assert render(["a", "b"], [["xx", "y"]], "rl") == " a │ b\n───┼──\nxx │ y"
    with pytest.raises(ValueError, match="2 cells"):
        render(["a", "b"], [["x"]])
    with pytest.raises(ValueError, match="1 cells"):
        render(["a", "b"], [], "l")


def test_stage_table_states_what_was_scored(bare: Record) -> None:
    record = bare.with_stage("ttt", score(1.5)).with_stage("quantized", score(1.625))
    lines = stage_table(record).splitlines()
    assert [line.split("│")[0].strip() for line in lines[2:]] == ["quantized", "+ score-first TTT"]
    cells = [cell.strip() for cell in lines[3].split("│")]
    assert cells[1:] == ["1.50000", f"{6 * LN2:.5f}", "250,000", "1,000,000", "100%", "0.0"]


def test_comparison_shows_both_accountings(bare: Record) -> None:
    record = packed(bare).with_stage("float", score(1.55)).with_stage("ttt", score(1.6))
    text = comparison_table(record, ROWS)
    cells = {c[0].strip(): [x.strip() for x in c[1:]] for c in map(_cells, text.splitlines())}
    assert cells["xz -9e"] == ["2.400", "2.000", "2.400"]
    assert cells["underpar, before quantization"] == ["–", "1.550", "–"]
    assert cells["underpar, + score-first TTT"] == ["–", "1.600", "18.400"]  # 1.6 + 8 * 2.1


def _cells(line: str) -> list[str]:
    return line.split("│")


@pytest.mark.parametrize(
    ("bpb", "says"),
    [
        (1.4, "Text alone: our 1.400 (quantized) beats zpaq, xz and gzip. "
              "Best of them: zpaq at 1.500, 7.1% above us."),
        (1.6, "Text alone: our 1.600 (quantized) does not beat zpaq, but beats xz and gzip. "
              "Best of them: zpaq at 1.500, 6.2% below us."),
        (3.0, "Text alone: our 3.000 (quantized) does not beat zpaq, xz and gzip. "
              "Best of them: zpaq at 1.500, 50.0% below us."),
    ],
)  # fmt: skip
def test_the_verdict_on_the_text_alone(bare: Record, bpb: float, says: str) -> None:
    assert verdict(bare.with_stage("quantized", score(bpb)), ROWS) == [says]


def test_the_verdict_on_everything_shipped(bare: Record) -> None:
    def says(bpb: float, file_bytes: int) -> str:
        return verdict(packed(bare, file_bytes).with_stage("ttt", score(bpb)), ROWS)[1]

    loses = says(1.5, 2_000_000)
    assert "2,100,000 bytes of model and code make it 18.300 on this text" in loses
    assert "1.900 for zpaq" in loses
    assert loses.endswith("worth shipping for texts of 42.000 MB or more.")  # 8 * 2.1 / (1.9 - 1.5)
    assert says(2.0, 2_000_000).endswith("no length of text would pay for the model.")
    assert says(0.5, 10_000).endswith("the model pays for itself.")


def test_a_tie_is_not_a_win(bare: Record) -> None:
    tie = Row("xz", N, N, 1.0, None, N)  # 8 bits per byte exactly
    (sentence,) = verdict(bare.with_stage("quantized", score(8.0)), [tie])
    assert "does not beat xz" in sentence
    assert "0.0%" in sentence


def test_a_compressor_that_is_missing_is_said_to_be(bare: Record) -> None:
    absent = Row("zpaq", None, None, 0.0, "package zpaq is not installed: pip install it", N)
    text = comparison_table(bare.with_stage("quantized", score(1.6)), [ROWS[0], absent])
    assert "zpaq level 5, one thread │     – │" in text
    assert text.endswith("not measured, package zpaq is not installed: pip install it.")
    assert "beats gzip." in text


def test_rows_of_another_text_are_refused(bare: Record) -> None:
    with pytest.raises(DataError, match=r"measured on 1,000,000 bytes.*900,000"):
        comparison_table(bare.with_stage("quantized", score(1.6, 900_000)), ROWS)


def test_a_record_without_scores_cannot_be_compared(bare: Record) -> None:
    with pytest.raises(DataError, match="no stage"):
        comparison_table(bare, ROWS)


def test_markdown_keeps_its_sentences_apart(bare: Record) -> None:
    text = comparison_table(packed(bare).with_stage("ttt", score(1.6)), ROWS, markdown=True)
    table, *sentences = text.split("\n\n")
    assert table.startswith("| bits per byte")
    assert len(sentences) == 2
