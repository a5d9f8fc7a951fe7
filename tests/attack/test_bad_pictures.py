"""Bad pictures of many kinds among good ones, through every command that reads pictures: the good ones are used, the
bad ones listed with a reason; no traceback, no hang, a few lines on the terminal."""

import csv
import shutil

import pytest
from attack_material import SMALL, picture
from attack_pictures import BAD, GOOD, KINDS, fill, is_named_in

LINES = 25  # on the terminal, at most
SECONDS = 200


@pytest.fixture(scope="module")
def photos(forks, material, whole):
    """A folder of 12 photographs of 4 landmarks and many other files: (folder, names of good ones, path -> kind)."""
    root = material / "pictures"
    shutil.rmtree(root, ignore_errors=True)
    good = [root / f"{landmark}" / f"{number}.png" for landmark in range(4) for number in range(3)]
    for path in good:
        picture(path, int(path.parent.name), int(path.stem))
    files = fill(sorted({path.parent for path in good}), 200 if whole else len(KINDS))
    (material / "pictures.yml").write_text((material / "training.yml").read_text().replace("pool: 10", "pool: 500"))
    good += [path for name, path in files.values() if KINDS[name].expected == GOOD]
    return root, {path.relative_to(root).as_posix() for path in good}, files


def problems_of(photos, outcome, used, report):
    """What is wrong. used: names, from the folder, of pictures that were used; report: text that lists the others."""
    _, good, files = photos
    problems = [outcome.problem(0)] if outcome.problem(0) else []
    lines = outcome.stderr.count("\n") + outcome.stdout.count("\n")
    if lines > LINES:
        problems.append(f"{lines} lines on the terminal")
    if good - used:
        problems.append(f"good ones left out: {sorted(map(repr, good - used))[:5]}")
    if used - good:
        problems.append(f"bad ones used: {sorted(map(repr, used - good))[:5]}")
    unreported = [f"{name} ({path.name!r})" for name, path in files.values()
              if KINDS[name].expected == BAD and not is_named_in(report, path)]
    if unreported:
        problems.append(f"left out without a reason: {', '.join(unreported[:6])}")
    return problems


def relative(names, root):
    return {str(name).removeprefix(f"{root}/") for name in names}


def listed(folder):
    return "".join(path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.rglob("bad*.txt")))


def check(count, photos, problems, name):
    count(f"bad pictures through {name}", tried=len(photos[2]))
    assert not problems, "\n".join(problems)


def names_in(path):
    return path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []


def test_describe(forks, material, photos, count):
    out = material / "pictures-out" / "extract"
    outcome = forks.rmac("extract", photos[0], "--out", out, "--network", material / "network.safetensors", *SMALL,
                         limited=True, timeout=SECONDS)
    used = relative(names_in(out / "names.txt"), photos[0])
    check(count, photos, problems_of(photos, outcome, used, listed(out)), "extract")


def test_index_and_search(forks, material, photos, whole, count):
    out = material / "pictures-out" / "index"
    outcome = forks.rmac("index", photos[0], "--out", out, "--network", material / "network.safetensors", *SMALL,
                         limited=True, timeout=SECONDS)
    names = forks.call("attack_compare:index_names", str(out)).value or []
    problems = problems_of(photos, outcome, relative(names, photos[0]), listed(out) + outcome.stderr)
    files = list(photos[2].values())
    for name, path in files if whole else files[::3]:
        outcome = forks.rmac("search", out, path, "--out", material / "neighbours.png", "--k", "3", limited=True,
                             timeout=20, cwd=str(material))
        # A file whose name can't be listed may be a query all the same.
        codes = {GOOD: (0,), BAD: (1, 0) if "name" in name else (1,)}.get(KINDS[name].expected, (1, 2))
        if problem := outcome.problem(*codes):
            problems.append(f"search with {name} ({path.name!r}): {problem}")
        if outcome.code == 1 and outcome.stderr.count("\n") > 1:
            problems.append(f"search with {name}: {outcome.stderr!r} is more than a line")
    check(count, photos, problems, "index and search")


def test_clean(forks, material, photos, count):
    out = material / "pictures-out" / "clean"
    outcome = forks.rmac("clean", photos[0], "--out", out, "--size", "160", "--keypoints", "200", "--thumbnails", "2",
                         one_core=True, limited=True, timeout=SECONDS)
    rows = []
    if (out / "images.csv").exists():
        with (out / "images.csv").open(newline="", encoding="utf-8", errors="replace") as file:
            rows = list(csv.DictReader(file))
    reasons = ("", "no verified match", "other part of the graph", "too few matches", "no keypoints")
    used = {row["path"] for row in rows if row["reason"] in reasons}
    report = listed(out) + outcome.stderr + "".join(row["path"] for row in rows if row["reason"] not in reasons)
    check(count, photos, problems_of(photos, outcome, used, report), "clean")


def test_train(forks, material, photos, count):
    out = material / "pictures-out" / "train"
    outcome = forks.rmac("train", photos[0], "--out", out, "--network", material / "network.safetensors", *SMALL,
                         "--updates", "2", "--settings", material / "pictures.yml", "--validation", material / "photos",
                         limited=True, timeout=SECONDS)
    problems = problems_of(photos, outcome, photos[1], listed(out) + outcome.stderr)
    if not (out / "best.safetensors").exists():
        problems.append("no network")
    check(count, photos, problems, "train")


def test_propose(forks, material, photos, count):
    table = material / "pictures-out" / "proposals.csv"
    outcome = forks.rmac("propose", photos[0], "--network", material / "proposing.safetensors", "--out", table, *SMALL,
                         "--k", "2", "--picture", table.with_suffix(".png"), limited=True, timeout=SECONDS)
    used = set()
    if table.exists():
        with table.open(newline="", encoding="utf-8") as file:
            used = relative((row["image"] for row in csv.DictReader(file)), photos[0])
    # The table has no column for reasons: the terminal shows how many are left out, and some of them.
    problems = problems_of((photos[0], photos[1], {}), outcome, used, "")
    if "left out" not in outcome.stderr:
        problems.append("no message that pictures are left out")
    check(count, photos, problems, "propose")
