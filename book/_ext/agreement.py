"""Does the miniature tell what the photographs tell? The order of settings, and the sign of effects, in both.

    ```{agreement} miniature.yml    the rank correlation of each notebook's settings, and the sign of each effect
    ```

The miniature is Diorama, measured by the profile full or embedded; the photographs are oxford5k_subset.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from rmaclib.evaluation.bootstrap import Interval, rank_correlation
from rmaclib.results import Result, load_results

MINIATURE, PHOTOGRAPHS = "diorama", "oxford5k_subset"
PROFILES = ("embedded", "full")  # of the miniature; a setting that both have is taken from the last
NOTEBOOKS = ("01_rmac", "03_learning", "04_proposals", "05_resolutions_and_expansion", "06_compression")


class Claim(NamedTuple):
    """An effect in both: its text, the differences in points, and what is known of the reason if they disagree."""

    text: str
    miniature: float
    photographs: float
    why: str

    @property
    def agrees(self) -> bool:
        return (self.miniature > 0) == (self.photographs > 0)


def below(records: Mapping[str, Result], start: str) -> dict[str, Result]:
    """The records whose keys begin with NOTEBOOK/DATA or another start: rest of the key -> record."""
    return {key.removeprefix(f"{start}/"): result for key, result in records.items() if key.startswith(f"{start}/")}


def both_records(results: Path, notebook: str) -> tuple[dict[str, Result], dict[str, Result]]:
    """The records of a notebook on the miniature and on photographs.

    Raises:
        FileNotFoundError: One of the two has none.
    """
    miniature: dict[str, Result] = {}
    for profile in PROFILES:
        miniature |= below(load_results(results / profile), f"{notebook}/{MINIATURE}")
    photographs = below(load_results(results / "photos"), f"{notebook}/{PHOTOGRAPHS}")
    if not (miniature and photographs):
        raise FileNotFoundError(f"{notebook}: expected records of {MINIATURE} and of {PHOTOGRAPHS} in {results}")
    return miniature, photographs


def shared_settings(miniature: Mapping[str, Result],
                    photographs: Mapping[str, Result]) -> dict[str, tuple[float, float]]:
    """Settings that both have a mAP of: name -> the two mAP, in percent."""
    return {name: (100 * miniature[name].value, 100 * photographs[name].value)
            for name in sorted(miniature.keys() & photographs.keys())
            if miniature[name].unit == photographs[name].unit == "mAP"}


def agreement(settings: Mapping[str, tuple[float, float]]) -> Interval:
    """The rank correlation of the two columns."""
    return rank_correlation(*zip(*settings.values(), strict=True))


def read_claims(path: Path, results: Path) -> list[Claim]:
    """The claims of a YAML file, with the difference that each makes in both.

    Raises:
        ValueError: A record is missing, or an entry is unknown; the message names the claim.
    """
    claims, of_notebook = [], {}
    for row in yaml.safe_load(path.read_text(encoding="utf-8")):
        if set(row) - {"claim", "notebook", "after", "before", "why"}:
            raise ValueError(f"{path.name}, {row.get('claim')}: expected claim, notebook, after, before and why")
        effects = []
        if row["notebook"] not in of_notebook:
            of_notebook[row["notebook"]] = both_records(results, row["notebook"])
        for records in of_notebook[row["notebook"]]:
            try:
                before = records[row["before"]].value if "before" in row else 0.0
                effects.append(100 * (records[row["after"]].value - before))
            except KeyError as error:
                raise ValueError(f"{path.name}, {row['claim']}: no record {error} of {row['notebook']}") from None
        claims.append(Claim(row["claim"], *effects, row.get("why", "")))
    return claims


def table(path: Path, results: Path) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """What the page shows: a row for each notebook and a row for each claim, the first row being the head."""
    orders = [("notebook", "settings", "rank correlation", "95 %")]
    for notebook in NOTEBOOKS:
        settings = shared_settings(*both_records(results, notebook))
        correlation = agreement(settings)
        ends = f"{signed(correlation.low, 2)} to {signed(correlation.high, 2)}"
        orders.append((notebook, str(len(settings)), signed(correlation.mean, 2), ends))
    signs = [("effect", "Diorama", "photographs", "sign", "reason, as far as it was tested")]
    signs += [(claim.text, signed(claim.miniature, 1), signed(claim.photographs, 1),
               *(("same", "") if claim.agrees else ("**differs**", claim.why))) for claim in read_claims(path, results)]
    return orders, signs


def signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


class Agreement(SphinxDirective):
    """Both tables."""

    required_arguments = 1

    def run(self):
        relative, path = self.env.relfn2path(self.arguments[0])
        results = Path(self.env.srcdir) / "_results"
        self.env.note_dependency(relative)
        for profile in (*PROFILES, "photos"):
            for record in (results / profile).rglob("*.json"):
                self.env.note_dependency(str(record))
        try:
            tables = table(Path(path), results)
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise self.error(f"agreement: {error}") from error
        text = []
        for rows in tables:
            text += ["````{list-table}", ":header-rows: 1", ""]
            text += [("* - " if number == 0 else "  - ") + cell for row in rows for number, cell in enumerate(row)]
            text += ["````", ""]
        box = nodes.container(classes=["scroll"])
        self.state.nested_parse(StringList(text, source=path), self.content_offset, box)
        return [box]


def setup(app):
    app.add_directive("agreement", Agreement)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
