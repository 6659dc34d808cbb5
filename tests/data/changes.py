"""Changes of a COCO document, for the fixture ``edit``."""


def remove(kind: str, key: str):
    """A change that removes a key of the first entry of a list."""
    return lambda document: document[kind][0].pop(key)


def put(kind: str, key: str, value):
    """A change that sets a key of the first entry of a list."""
    return lambda document: document[kind][0].__setitem__(key, value)


def every(kind: str, **values):
    """A change that sets keys of all entries of a list; a callable gets the entry."""

    def change(document):
        for entry in document[kind]:
            entry.update({k: v(entry) if callable(v) else v for k, v in values.items()})

    return change


def replace_boxes(boxes):
    """A change that replaces all annotations by these boxes of the first image."""
    notes = [
        {"id": i + 1, "image_id": 0, "category_id": 7, "bbox": box, "area": 1.0, "iscrowd": 0}
        for i, box in enumerate(boxes)
    ]
    return lambda document: document.update(annotations=notes)
