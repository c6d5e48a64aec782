"""A comparison for CI: as Markdown for a comment, and as JUnit for a list of checks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from fractionate.analysis.comparison import Comparison
from fractionate.analysis.requirements import Check
from fractionate.errors import printable
from fractionate.files import write_text
from fractionate.report.comparison import comparison_sections
from fractionate.report.render import markdown_of, plain


def gate_markdown(comparison: Comparison, found: Sequence[Check]) -> str:
    """Return a comparison as Markdown: what was required first, then the tables."""
    lines = []
    if found:
        passed = all(one.passed for one in found)
        lines.append(f"### {'✅ Shown' if passed else '❌ Not shown'}\n")
        lines += [f"- {'✅' if one.passed else '❌'} {plain(one.said)}" for one in found]
        lines.append("")
    return "\n".join([*lines, markdown_of(comparison_sections(comparison))])


def write_junit(comparison: Comparison, found: Sequence[Check], path: Path) -> None:
    """Write the requirements as a suite of JUnit tests; without any, one test says that the systems were compared."""
    cases = list(found) or [Check("compared", not comparison.misfits, "; ".join(comparison.misfits))]
    failed = sum(not one.passed for one in cases)
    suite = ElementTree.Element(
        "testsuite", name="fractionate compare", tests=str(len(cases)), failures=str(failed), errors="0", time="0"
    )
    for one in cases:
        case = ElementTree.SubElement(suite, "testcase", classname="fractionate.compare", name=one.name, time="0")
        if not one.passed:
            ElementTree.SubElement(case, "failure", message=printable(one.said)).text = printable(one.said)
        else:
            ElementTree.SubElement(case, "system-out").text = printable(one.said)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    write_text(ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n", path)
