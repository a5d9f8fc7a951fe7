"""What an index of pictures holds; runs in a child of attack_server."""


def index_names(folder: str) -> list[str]:
    from rmaclib.search.vector_index import VectorIndex

    return list(VectorIndex.load(folder).names)
