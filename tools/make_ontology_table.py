"""Write ``tables/ontology.tsv``: ids, names, restrictions and links of the published ``ontology.json``.

Descriptions and examples are left out. A line has the id, the name, the restrictions and the ids of the children:

    python tools/make_ontology_table.py ontology.json
"""

import json
import sys
from pathlib import Path

from audioset.labels.ontology import TABLE


def main(published: Path) -> None:
    """Write the table into the source tree."""
    nodes = json.loads(published.read_text(encoding="utf-8"))
    fields = ((node["id"], node["name"], " ".join(node["restrictions"]), " ".join(node["child_ids"])) for node in nodes)
    path = Path(__file__).parent.parent / "src" / "audioset" / TABLE
    path.write_text("".join("\t".join(row) + "\n" for row in fields), encoding="utf-8", newline="\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
