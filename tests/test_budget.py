import pytest
import torch

from underpar.artifact.budget import account
from underpar.artifact.container import write_container
from underpar.errors import ArtifactError, BudgetError
from underpar.recipe.schema import Budget

SECTIONS = {"codes": bytes(9000), "scales": bytes(500), "tokenizer": bytes(400)}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.upar"
    write_container(path, {"codings": {"codes": ["rans", 20_000, 0]}}, SECTIONS)
    return path


def test_every_byte_is_in_exactly_one_part(path):
    counted = account(path, Budget(count_tokenizer=True), 1000)
    assert counted.file_bytes == path.stat().st_size
    assert sum(part.bytes for part in counted.parts) == 1000 + path.stat().st_size
    assert counted.total == 1000 + path.stat().st_size
    assert counted.left == 16_000_000 - counted.total


def test_the_tokenizer_is_shown_but_not_counted(path):
    free = account(path, Budget(), 1000)
    assert free.total == 1000 + path.stat().st_size - 400
    assert any("tokenizer (not counted)" in line and " 400 B" in line for line in free.table())


def test_the_table_shows_sizes_and_total(path):
    table = "\n".join(account(path, Budget(bytes=20_000), 1000).table())
    assert "code " in table
    assert "9,000 B" in table
    assert "45.000 %" in table


def test_an_exact_fit_is_a_fit_and_one_byte_more_is_not(path):
    total = account(path, Budget(), 1000).total
    fits = account(path, Budget(bytes=total), 1000)
    assert fits.require() is fits
    assert fits.left == 0
    with pytest.raises(BudgetError, match="1 too many"):
        account(path, Budget(bytes=total - 1), 1000).require()


def test_the_advice_is_enough(path):
    """1,000 bytes over with 20,000 codes: log2(factor) * 20,000 / 8 must be 1,000 at least."""
    over = account(path, Budget(), 1000).total - 1000
    with pytest.raises(BudgetError) as error:
        account(path, Budget(bytes=over), 1000).require()
    factor = float(str(error.value).split("matrix_k by ")[1].split(",")[0])
    assert 1000 <= torch.tensor(factor).log2().item() * 20_000 / 8 < 1100


def test_a_damaged_file_is_not_counted(path):
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError):
        account(path, Budget(), 0)
