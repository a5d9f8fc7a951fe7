import pytest
from cleaning_pictures import VIEWS, save, texture, warped


@pytest.fixture(scope="session")
def collection(tmp_path_factory):
    """Folder with a list. Label 0: four views of one texture and two other textures; 1: no image; 2: three views;
    3: one image; 5: two identical images."""
    root = tmp_path_factory.mktemp("collection")
    lines = []

    def add(label, number, picture):
        name = f"images/{label}/{number}.png"
        save(root / name, picture)
        lines.append(f"{name} {label}\n")

    for number, view in enumerate(VIEWS):
        add(0, number, warped(texture(1), view, texture(100 + number)))
    add(0, 4, texture(50))
    add(0, 5, texture(51))
    for number, view in enumerate(VIEWS[:3]):
        add(2, number, warped(texture(2), view))
    add(3, 0, texture(3))
    add(5, 0, texture(4))
    add(5, 1, texture(4))
    (root / "list.txt").write_text("".join(lines))
    (root / "labels.txt").write_text("tower\nempty\nbridge\nsingle\nunused\ntwins\n")
    return root
