"""The picture of all pairs: a cell for each, coloured by its status."""

import pytest

from report.__main__ import main
from report.errors import ReportError
from report.figures.compatibility import STATUSES, compatibility_matrix, write_compatibility
from tests.report.figures.test_figures import texts


def test_every_pair_is_a_cell_below_the_diagonal():
    figure = compatibility_matrix({("b", "a"): "ok", ("a", "c"): "refused", ("b", "c"): "mysterious"})
    cells = figure.axes[0].collections[0].get_array().reshape(3, 3)
    kinds = list(STATUSES)
    assert [kinds[int(cells[place])] for place in ((1, 0), (2, 0), (2, 1))] == ["ok", "refused", "crashed"]
    assert cells.count() == 3, "nothing above the diagonal"
    assert "refused: 1 pairs" in texts(figure)
    assert "unverified" not in texts(figure)


@pytest.mark.slow
def test_the_committed_pairs_are_drawn_beside_the_file(root, tmp_path, capsys):
    file = tmp_path / "pairs.csv"
    file.write_bytes((root / "docs" / "compatibility.csv").read_bytes())
    assert main(["compatibility", str(file)]) == 0
    assert capsys.readouterr().out.count("\n") == 3
    assert (tmp_path / "pairs.png").read_bytes() == (root / "docs" / "compatibility.png").read_bytes()


@pytest.mark.parametrize("text", ["", "one,other\na,b\n", "one,other,status\n"])
def test_what_is_no_such_file_is_named(tmp_path, text):
    file = tmp_path / "pairs.csv"
    file.write_text(text)
    with pytest.raises(ReportError, match=r"pairs\.csv: has no rows with one, other, status"):
        write_compatibility(file)
    with pytest.raises(ReportError, match="not readable as CSV"):
        write_compatibility(tmp_path / "none.csv")
