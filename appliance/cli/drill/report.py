"""The report as one file of HTML that needs nothing else: charts, table, faults as bands. Pure but for the assets.

Invariant: the page can load nothing and run nothing but what it carries: its Content-Security-Policy names the hashes
of its one script and one style. Text of the record is escaped; its data stands in a block that is never executed.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from pathlib import Path
from typing import Final

from appliance.cli.drill.record import Record, is_clean, verdict

HERE: Final = Path(__file__).resolve().parent
VENDOR: Final = HERE.parent.parent / "web" / "static" / "vendor"

_EXPORT: Final = "export { uPlot as default };"
_HEADS: Final = (
    "Fault",
    "Node",
    "Without writes",
    "Elections",
    "Catch-up",
    "Writes/s during",
    "p50",
    "p99",
)


def render(record: Record) -> str:
    """The whole page."""
    plot = (VENDOR / "uPlot.js").read_text("utf-8")
    assert _EXPORT in plot
    script = f'"use strict";\n(() => {{\n{plot.replace(_EXPORT, "")}\n{_asset("report.js")}\n}})();\n'
    style = f"{(VENDOR / 'uPlot.css').read_text('utf-8')}\n{_asset('report.css')}"
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; base-uri 'none'; "
        "form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>What failures cost: raftberry drill</title>
<style>{style}</style>
</head>
<body>
{_body(record)}
<script type="application/json" id="record">{_json(record)}</script>
<script>{script}</script>
</body>
</html>
"""


def _body(record: Record) -> str:
    setting, calm = record["setting"], record["undisturbed"]
    tone = "good" if is_clean(record) else "bad"
    return f"""<main>
<h1>What failures cost</h1>
<p class="soft">{_text(setting["nodes"])} nodes, {_text(setting["date"])}. Steady load of
{_text(f"{setting['writes_per_second']:g}")} writes a second from {_text(setting["clients"])} clients and
{_text(setting["streams"])} streams; undisturbed: {_text(calm["writes_per_second"])} a second, p50
{_ms(calm["p50_ms"])}, p99 {_ms(calm["p99_ms"])}.</p>
<p class="verdict {tone}">{_text(verdict(record))}</p>
<section class="card"><h2 id="rate-title">Acknowledged writes a second</h2>
<div class="chart" id="rate" role="img" aria-labelledby="rate-title"></div></section>
<section class="card"><h2 id="latency-title">Latency, first attempt to acknowledgement</h2>
<p class="legend"><span class="p50">p50</span> <span class="p99">p99</span> of each 100 ms, logarithmic</p>
<div class="chart" id="latency" role="img" aria-labelledby="latency-title"></div></section>
<p class="soft" id="hint">Numbered bands: the faults below; the dark part lasts until the fault was lifted, the light
part until the cluster had settled. Gaps in the lines: no write was acknowledged.</p>
<section class="card"><h2>Each fault</h2>
<div class="wide"><table><thead><tr><th scope="col">#</th>{_heads()}</tr></thead>
<tbody>{"".join(_row(number, fault) for number, fault in enumerate(record["faults"], start=1))}</tbody></table></div>
<p class="soft">Without writes: the longest time between two acknowledgements to any client, until the cluster had
settled. Elections: terms that began. Catch-up: from the node's return until it had applied what was committed.
p50 and p99 of all writes acknowledged until the cluster had settled, attempts included.</p></section>
<section class="card"><h2>Moments</h2><ul class="moments">{_moments(record)}</ul></section>
<p class="soft">{_text(setting["machine"])}. raftberry {_text(setting["version"])}:
<code>{_text(setting["command"])}</code></p>
</main>"""


def _heads() -> str:
    return "".join(f'<th scope="col">{head}</th>' for head in _HEADS)


def _row(number: int, fault: Record) -> str:
    cells = (
        (_text(fault["node"]), "text"),
        (_ms(fault["without_writes_ms"]), ""),
        (_text(fault["elections"]), ""),
        (_ms(fault["catch_up_ms"]), ""),
        (_text(fault["writes_per_second"]), ""),
        (_ms(fault["p50_ms"]), ""),
        (_ms(fault["p99_ms"]), ""),
    )
    columns = "".join(f'<td class="{kind}">{text}</td>' for text, kind in cells)
    return f'<tr><td>{number}</td><th scope="row">{_text(fault["title"])}</th>{columns}</tr>\n'


def _moments(record: Record) -> str:
    marks = [(moment["at_s"], moment["what"]) for fault in record["faults"] for moment in fault["moments"]]
    marks += [(one["at_s"], f"{one['name']} seen leading in term {one['term']}") for one in record["leaders"]]
    return "".join(f"<li><b>{at_s:.1f} s</b> {_text(what)}</li>\n" for at_s, what in sorted(marks))


def _text(value: object) -> str:
    return html.escape(str(value))


def _ms(value: float | None) -> str:
    if value is None:
        return "&ndash;"
    return f"{value:.0f}&nbsp;ms" if value >= 10 else f"{value:.1f}&nbsp;ms"


def _json(record: Record) -> str:
    """Inside a script element only `<` could end it."""
    return json.dumps(record, separators=(",", ":")).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return (HERE / name).read_text("utf-8")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
