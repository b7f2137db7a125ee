"""The documentation says which tests prove which fault."""

import matrix


def test_the_table_in_the_documentation_is_that_of_the_tests() -> None:
    document = matrix.DOCUMENT.read_text(encoding="utf-8")
    assert matrix.table() in document, "python tests/matrix.py writes it anew"
