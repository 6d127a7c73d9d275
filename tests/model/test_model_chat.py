"""Chat templates render as in transformers."""

from __future__ import annotations

import pytest

from pellucid.errors import ModelError
from pellucid.model.chat import render_chat

MESSAGES = [
    {"role": "system", "content": 'Be <brief> & "kind".'},
    {"role": "user", "content": "1 + 1?\n\n  indented"},
    {"role": "assistant", "content": "日本 {{ 2 }}"},
    {"role": "user", "content": ""},
]
TEMPLATES = {
    "chatml": (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m.content }}"
        "{{ '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "blocks": (
        "{{ bos_token }}\n    {% for m in messages %}\n"
        "      {%- if m.role == 'system' %}{% continue %}{% endif %}\n"
        "    [{{ m.role }}] {{ m.content | trim }}{{ eos_token }}\n    {% endfor %}\n"
    ),
    "json": "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}{{ tools | default('-') }}",
    "namespace": (
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
        "{% if loop.index0 == 2 %}{% break %}{% endif %}{% endfor %}{{ ns.n }}"
    ),
    "generation": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}\n"
        "{{ m.content }}{% endgeneration %}\n{% else %}{{ m.content }}{% endif %}{% endfor %}"
    ),
    "strings": (
        "{% for m in messages[::-1] %}{{ m['content'].split('\n')[-1].strip('\n') }}|"
        "{{ m.content is defined }}{{ m.tool_calls is defined }}{% endfor %}"
    ),
}


@pytest.mark.parametrize("ask", [True, False])
@pytest.mark.parametrize("name", TEMPLATES)
def test_text_equals_transformers(name, ask, bpe):
    from transformers import PreTrainedTokenizerFast

    theirs = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")
    expected = theirs.apply_chat_template(
        MESSAGES, chat_template=TEMPLATES[name], tokenize=False, add_generation_prompt=ask
    )
    found = render_chat(
        TEMPLATES[name], MESSAGES, add_generation_prompt=ask, bos_token="<s>", eos_token="</s>"
    )
    assert found == expected
    assert found


def test_a_template_may_ask_for_the_date():
    assert render_chat("{{ strftime_now('%Y') }}", []).isdigit()


def test_a_template_that_refuses_says_why_in_one_line():
    with pytest.raises(ModelError, match="roles must alternate") as caught:
        render_chat("{{ raise_exception('roles must\n alternate') }}", MESSAGES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("template", ["{% if %}", "{{ messages + 1 }}", "{{ undefined_name.x }}"])
def test_a_broken_template_is_the_models_fault(template):
    with pytest.raises(ModelError, match="chat template"):
        render_chat(template, MESSAGES)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'content': 'changed'}) }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{{ cycler.__init__.__globals__['os'] }}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(template):
    before = [dict(m) for m in MESSAGES]
    with pytest.raises(ModelError):
        render_chat(template, MESSAGES)
    assert before == MESSAGES
