"""The page of a dashboard that asks for its token: a field to paste it into, for who came without."""

from cluster.dashboard.web.page import Page, hash_source

STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { margin: 12vh auto 0; padding: 0 20px; max-width: 34rem; background: light-dark(#fbfaf6, #0f1419); color: light-dark(#1c2126, #e6ebf0); }
h1 { font-size: 20px; margin: 0 0 8px; }
label { display: block; margin: 20px 0 6px; font-weight: 600; }
.field { display: flex; gap: 8px; }
input { flex: 1; min-width: 0; padding: 8px 10px; font: inherit; border: 1px solid light-dark(#767b80, #8b96a1); border-radius: 4px; background: light-dark(#fff, #161d26); color: inherit; }
button { padding: 8px 16px; font: inherit; border: 1px solid #1f5fb0; border-radius: 4px; background: #1f5fb0; color: #fff; cursor: pointer; }
input:focus-visible, button:focus-visible { outline: 2px solid light-dark(#1f6feb, #6ea8fe); outline-offset: 2px; }
code { font-size: 13px; }
.wrong { color: light-dark(#b83c0a, #f2764a); font-weight: 600; }
"""  # noqa: E501 - a line for each rule
KEEP_PLACE = 'document.forms[0].action = "./" + location.hash;'
"""What follows the # says which page was meant: the browser would leave it out of the address that it goes to."""
WRONG = '<p class="wrong" role="alert">That is not the token of this dashboard.</p>'


def token_page(*, wrong: bool) -> Page:
    """`wrong`: whether a token came, and was not this dashboard's. The form only goes to the dashboard itself, which
    takes the token out of the address and keeps it as a cookie."""
    html = f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Shoal: token</title><style>{STYLE}</style></head>
<body><main>
<h1>This dashboard asks for a token</h1>
<p>Whoever started it has the token: it was printed with the address, behind <code>?token=</code>.</p>
{WRONG if wrong else ""}
<form method="get" action="./">
<label for="token">Token</label>
<div class="field">
<input id="token" name="token" type="password" required autofocus autocomplete="off" spellcheck="false">
<button type="submit">Open</button>
</div>
</form>
</main><script>{KEEP_PLACE}</script></body></html>
"""
    policy = (
        f"default-src 'none'; style-src {hash_source(STYLE)}; script-src {hash_source(KEEP_PLACE)}; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    return Page(html=html, policy=policy)
