"""What a screen tests: targets of guides, controls, pairs, and enough cells; without a run."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from normalisr_dask.screen import control_use, design_screen, groupings_with_enough_cells
from normalisr_dask.settings import RunSettings
from normalisr_dask.storage.tables import NamedRows

GENES = ("gene_a", "gene_b", "gene_c")
GUIDES = ("A_g1", "A_g2", "B_g1", "nt_g1", "nt_g2")
VALUES = np.array([[1, 0, 0, 0, 0, 1], [0, 1, 0, 0, 0, 1], [0, 0, 1, 0, 0, 1], [0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0]])
TARGETS = "guide\ttarget\nnt_g1\tnone\nnt_g2\tnone\nA_g1\tA\nA_g2\tA\nB_g1\tB\n"


def named_rows(values: np.ndarray = VALUES, names: Sequence[str] = GUIDES) -> NamedRows:
    cells = np.array([f"cell_{number}" for number in range(values.shape[1])], dtype=object)
    return NamedRows(tuple(names), cells, sparse.csr_array(values.astype(np.float64)))


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.fixture
def settings(tmp_path: Path) -> RunSettings:
    return RunSettings(store="store", output="out", groupings="guides.tsv")


@pytest.fixture
def targets(tmp_path: Path) -> str:
    return write(tmp_path / "targets.tsv", TARGETS)


class TestTargets:
    def test_without_a_table_guides_are_tested_and_have_no_target(self, settings):
        screen = design_screen(settings, named_rows(), GENES)
        assert screen.groupings.names == GUIDES
        assert screen.targets is None
        assert not screen.is_control.any()
        assert screen.pairs is None
        assert screen.reference.names == ()

    @pytest.mark.parametrize("kind", ["tsv", "csv.gz", "parquet"])
    def test_guides_know_their_targets_from_every_kind_of_table(self, settings, tmp_path, kind):
        table = pd.DataFrame({"guide": GUIDES, "target": ["A", "A", "B", "NA", "1"]})
        path = tmp_path / f"targets.{kind}"
        if kind == "parquet":
            table.to_parquet(path)
        else:
            table.to_csv(path, sep="\t" if kind == "tsv" else ",", index=False)
        screen = design_screen(replace(settings, targets=str(path), test="guides"), named_rows(), GENES)
        assert screen.groupings.names == GUIDES
        assert screen.targets == ("A", "A", "B", "NA", "1")

    def test_with_a_table_targets_are_tested_unless_asked_otherwise(self, settings, targets):
        screen = design_screen(replace(settings, targets=targets), named_rows(), GENES)
        assert screen.groupings.names == screen.targets == ("A", "B", "none")
        expected = [[1, 1, 0, 0, 0, 1], [0, 0, 1, 0, 0, 1], [0, 0, 0, 1, 1, 0]]
        np.testing.assert_array_equal(screen.groupings.values.toarray(), expected)

    def test_negative_controls_are_tested_guide_by_guide(self, settings, targets):
        screen = design_screen(replace(settings, targets=targets, control=("none",)), named_rows(), GENES)
        assert screen.groupings.names == ("A", "B", "nt_g1", "nt_g2")
        assert screen.targets == ("A", "B", "none", "none")
        assert screen.is_control.tolist() == [False, False, True, True]
        np.testing.assert_array_equal(screen.groupings.values.toarray()[2:], VALUES[3:])

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("guide\ttarget\nA_g1\tA\n", "names no target of 4 of 5 groupings, the first is 'A_g2'"),
            (TARGETS + "A_g1\tB\n", "guide 'A_g1' occurs more than once"),
            (TARGETS.replace("B_g1\tB", "B_g1\t"), r"guide 'B_g1' has no target \(1 such lines\)"),
            ("guide\ttarget\tbatch\nA_g1\tA\tx\n", "expected two columns, guide and target, found 3"),
            ("guide\nA_g1\n", "expected a header with a column of guide names and at least one more"),
            ("guide\ttarget\n", "has a header but no guides"),
            ("guide\ttarget\n\tA\n", "data row 1 has no guide name"),
        ],
    )
    def test_bad_tables(self, settings, tmp_path, text, message):
        path = write(tmp_path / "targets.tsv", text)
        with pytest.raises(ValueError, match=message):
            design_screen(replace(settings, targets=path), named_rows(), GENES)

    def test_guides_that_are_not_there_are_ignored_with_a_warning(self, settings, tmp_path):
        path = write(tmp_path / "targets.tsv", TARGETS + "C_g1\tC\n")
        with pytest.warns(UserWarning, match="1 of 6 guides are not among the groupings and are ignored: 'C_g1'"):
            screen = design_screen(replace(settings, targets=path), named_rows(), GENES)
        assert screen.targets == ("A", "B", "none")

    def test_only_zero_and_one_can_be_united(self, settings, targets):
        with pytest.raises(ValueError, match="grouping 'A_g2' has 2; use --test guides"):
            design_screen(replace(settings, targets=targets), named_rows(VALUES * [[1], [2], [1], [1], [1]]), GENES)

    def test_a_control_guide_with_the_name_of_a_target(self, settings, targets):
        names = ("A_g1", "A_g2", "B_g1", "nt_g1", "A")
        path = write(Path(targets).with_name("same.tsv"), TARGETS.replace("nt_g2", "A"))
        with pytest.raises(ValueError, match="'A' is both a control guide and a target"):
            design_screen(replace(settings, targets=path, control=("none",)), named_rows(names=names), GENES)


class TestControls:
    def test_as_reference_they_are_not_tested(self, settings, targets):
        asked = replace(settings, targets=targets, test="guides", control=("none",), control_use="reference")
        screen = design_screen(asked, named_rows(), GENES)
        assert screen.groupings.names == GUIDES[:3]
        assert screen.targets == ("A", "A", "B")
        assert screen.reference.names == ("nt_g1", "nt_g2")
        np.testing.assert_array_equal(screen.reference.values.toarray(), VALUES[3:])
        assert not screen.is_control.any()

    def test_names_of_guides_and_a_file_add_up(self, settings, tmp_path):
        path = write(tmp_path / "controls.txt", "nt_g2\n")
        screen = design_screen(replace(settings, control=("nt_g1",), control_file=path), named_rows(), GENES)
        assert screen.is_control.tolist() == [False, False, False, True, True]

    @pytest.mark.parametrize(
        ("other_groupings", "asked", "expected"),
        [
            ("ignore", None, "negative"),
            ("covariates", None, "negative"),
            ("exclude", None, "reference"),
            ("exclude", "negative", "negative"),
            ("ignore", "reference", "reference"),
        ],
    )
    def test_default_use_goes_with_the_other_groupings(self, settings, other_groupings, asked, expected):
        asked = replace(settings, other_groupings=other_groupings, control=("nt_g1",), control_use=asked)
        assert control_use(asked) == expected
        assert control_use(replace(asked, control=())) is None

    def test_unknown_names(self, settings, targets):
        message = "2 of 3 controls are neither groupings nor targets, the first is 'non'; .* targets 'A', 'B', 'none'"
        with pytest.raises(ValueError, match=message):
            design_screen(replace(settings, targets=targets, control=("non", "none", "x")), named_rows(), GENES)
        with pytest.raises(ValueError, match=r"1 of 1 controls are neither .* groupings 'A_g1', 'A_g2', 'B_g1' and 2"):
            design_screen(replace(settings, control=("none",)), named_rows(), GENES)

    def test_nothing_but_reference(self, settings):
        with pytest.raises(ValueError, match="all 5 groupings are controls, and as reference none of them is tested"):
            design_screen(replace(settings, control=GUIDES, control_use="reference"), named_rows(), GENES)


class TestPairs:
    def test_names_of_groupings_targets_and_guides(self, settings, tmp_path, targets):
        path = write(tmp_path / "pairs.tsv", "grouping\tgene\nA\tgene_a\nB_g1\tgene_c\nA\tgene_a\n")
        by_guide = design_screen(replace(settings, targets=targets, test="guides", pairs=path), named_rows(), GENES)
        expected = np.zeros((5, 3), dtype=bool)
        expected[[0, 1, 2], [0, 0, 2]] = True
        np.testing.assert_array_equal(by_guide.pairs.toarray(), expected)
        by_target = design_screen(replace(settings, targets=targets, pairs=path), named_rows(), GENES)
        np.testing.assert_array_equal(by_target.pairs.toarray(), expected[[0, 2, 3]])
        np.testing.assert_array_equal(by_guide.select(np.array([2])).pairs.toarray(), expected[[2]])

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "g\tgene\nC\tgene_a\nD\tgene_a\nC\tgene_b\n",
                "2 groupings of 3 pairs are unknown, the first is 'C'; known",
            ),
            ("g\tgene\nA_g1\tgene_x\nA_g2\tgene_a\n", "1 genes of 1 pairs are unknown, the first is 'gene_x'; known"),
            ("g\tgene\nA_g1\t\n", "grouping 'A_g1' has no gene"),
        ],
    )
    def test_unknown_names(self, settings, tmp_path, text, message):
        with pytest.raises(ValueError, match=message):
            design_screen(replace(settings, pairs=write(tmp_path / "pairs.tsv", text)), named_rows(), GENES)


class TestEnoughCells:
    def test_small_groupings_are_named(self, settings):
        screen = design_screen(settings, named_rows(), GENES)
        n_cells = np.array([5, 2, 9, 0, 3])
        with pytest.warns(UserWarning, match="3 of 5 groupings have fewer than 5 cells .* the first is 'A_g2' with 2"):
            rows = groupings_with_enough_cells(screen, n_cells, 5)
        assert rows.tolist() == [0, 2]
        assert groupings_with_enough_cells(screen, n_cells, 0).tolist() == [0, 1, 2, 3, 4]

    def test_none_is_large_enough(self, settings):
        screen = design_screen(settings, named_rows(), GENES)
        with pytest.raises(ValueError, match=r"all 5 groupings have fewer than 10 cells .*, at most 9; lower --min-gr"):
            groupings_with_enough_cells(screen, np.array([5, 2, 9, 0, 3]), 10)
