"""Texts that would run, hide, move or flood a page."""

NASTY = {
    "script": "<script>alert(1)</script>",
    "end": "</script></style></p></bdi></body><h1>free</h1>",
    "template": "{{ 7*7 }} {% raw %} ${7*7} {# x #}",
    "rtl": "\u202egnirts desrever\u202c \u2066isolated",
    "ansi": "\x1b[31mred\x1b]8;;http://evil.example\x07link\x1b]8;;\x07",
    "attribute": '" onmouseover="alert(1)" x=\'',
    "entity": "&lt;b&gt; &amp;#x3c;img src=x onerror=alert(1)&#62;",
    "image": "<img src=http://evil.example/x.png onerror=alert(1)>",
    "markdown": "[link](javascript:alert(1)) ![x](http://evil.example/y.png)",
    "null": "a\x00b\x08c",
    "css": "</style><style>body{display:none}</style>",
    "comment": "<!-- unclosed <script",
    "cdata": "]]><![CDATA[",
    "json": '\\"}]};alert(1);//\u2028\u2029\\u003c/script>',
    "prototype": "__proto__",
}
