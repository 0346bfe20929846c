"""Every file of the contract says how other languages name what is generated from it."""

import pytest
from google.protobuf.descriptor import FileDescriptor

from proto.documents.contract import FILES, ROOT


def outer_class(file: FileDescriptor) -> str:
    """The Java class of what the file has besides messages: its name in capitals, and "Proto"."""
    stem = file.name.rpartition("/")[2].removesuffix(".proto")
    return "".join(word.capitalize() for word in stem.split("_")) + "Proto"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_file_names_its_package_in_every_language(file: FileDescriptor) -> None:
    options = file.GetOptions()
    assert options.csharp_namespace == "Tidemark.V1"
    assert options.go_package == "tidemark.dev/api/tidemark/v1;tidemarkv1"
    assert options.java_package == "dev.tidemark.v1"
    assert options.java_multiple_files
    assert options.java_outer_classname == outer_class(file)
    assert options.php_namespace == r"Tidemark\V1"
    assert options.ruby_package == "Tidemark::V1"


def test_java_class_of_a_file_has_the_name_of_no_message() -> None:
    names = {name for file in FILES for name in (*file.message_types_by_name, *file.enum_types_by_name)}
    assert names.isdisjoint(map(outer_class, FILES))


def test_the_module_of_the_contract_has_a_name() -> None:
    assert "    name: buf.build/tidemark/tidemark\n" in (ROOT / "buf.yaml").read_text()
