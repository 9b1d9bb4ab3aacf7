"""Conversations with tools, as templates of several families show them: cases for text_golden.py.

The templates are written for this file, in the manners of DeepSeek-V3 and V3.1, Qwen, Llama and Mistral: what they do with tools, calls and
results differs in just the ways that matter here.
"""
import json

from transformers.utils import chat_template_utils

DEEPSEEK_V3 = """\
{% set ns = namespace(first=true, outputs=false) %}{{ bos_token }}
{%- for m in messages %}{%- if m['role'] == 'system' %}{{ m['content'] }}{%- endif %}{%- endfor %}
{%- for m in messages %}
{%- if m['role'] == 'user' %}{%- set ns.outputs = false -%}{{ '<｜User｜>' + m['content'] }}{%- endif %}
{%- if m['role'] == 'assistant' and m['content'] is none %}{%- set ns.first = true %}
{%- for tool in m['tool_calls'] %}
{{- '<｜Assistant｜><｜tool▁calls▁begin｜>' if ns.first else '\\n' }}{{ '<｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + tool['function']['name'] + '\\n' + '```json' + '\\n' + tool['function']['arguments'] + '\\n' + '```' + '<｜tool▁call▁end｜>' }}
{%- set ns.first = false %}{%- endfor %}{{ '<｜tool▁calls▁end｜><｜end▁of▁sentence｜>' }}{%- endif %}
{%- if m['role'] == 'assistant' and m['content'] is not none %}
{{- ('<｜tool▁outputs▁end｜>' if ns.outputs else '<｜Assistant｜>') + m['content'] + '<｜end▁of▁sentence｜>' }}{%- set ns.outputs = false -%}{%- endif %}
{%- if m['role'] == 'tool' %}{{ ('\\n' if ns.outputs else '<｜tool▁outputs▁begin｜>') + '<｜tool▁output▁begin｜>' + m['content'] + '<｜tool▁output▁end｜>' }}{%- set ns.outputs = true -%}{%- endif %}
{%- endfor -%}{% if ns.outputs %}{{ '<｜tool▁outputs▁end｜>' }}{% elif add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"""

DEEPSEEK_V31 = """\
{%- set ns = namespace(system='', tool_text='') -%}
{%- for m in messages if m.role == 'system' %}{% set ns.system = ns.system + ('\\n\\n' if not loop.first else '') + m.content %}{% endfor -%}
{%- if tools is defined and tools is not none -%}
{%- set ns.tool_text = '## Functions\\n' -%}
{%- for tool in tools -%}
{%- set ns.tool_text = ns.tool_text + '\\n### ' + tool.function.name + '\\nAbout: ' + (tool.function.description or 'nothing') + '\\n\\nSchema: ' + (tool.function.parameters | tojson) + '\\n' -%}
{%- endfor -%}
{%- set ns.system = ns.system + '\\n\\n' + ns.tool_text -%}
{%- endif -%}
{{ bos_token }}{{ ns.system }}
{%- for m in messages -%}
{%- if m['role'] == 'user' -%}{{ '<｜User｜>' + m['content'] }}{%- endif -%}
{%- if m['role'] == 'assistant' and m['tool_calls'] is defined and m['tool_calls'] is not none -%}
{{ '<｜Assistant｜></think>' }}{%- if m['content'] -%}{{ m['content'] }}{%- endif -%}
{%- for tool in m['tool_calls'] -%}
{{ '<｜tool▁calls▁begin｜>' if loop.first else '' }}{{ '<｜tool▁call▁begin｜>' + tool['function']['name'] + '<｜tool▁sep｜>' + (tool['function']['arguments'] | tojson) + '<｜tool▁call▁end｜>' }}
{%- endfor -%}{{ '<｜tool▁calls▁end｜><｜end▁of▁sentence｜>' }}
{%- elif m['role'] == 'assistant' -%}{{ '<｜Assistant｜></think>' + m['content'] + '<｜end▁of▁sentence｜>' }}
{%- elif m['role'] == 'tool' -%}{{ '<｜tool▁output▁begin｜>' + m['content'] + '<｜tool▁output▁end｜>' }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and messages[-1]['role'] == 'user' -%}{{ '<｜Assistant｜></think>' }}{%- endif -%}"""

QWEN = """\
{%- if tools %}
    {{- 'system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- "<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}{{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>" }}
{%- endif %}
{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '[' + message.role + ']' + content }}
    {%- elif message.role == "assistant" %}
        {{- '[assistant]' + content.lstrip('\\n') }}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
                {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
                {{- '<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}{{- tool_call.arguments }}{%- else %}{{- tool_call.arguments | tojson }}{%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '[user]' }}{%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- content }}{{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '[end]\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}"""

LLAMA = """\
{{- bos_token }}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if tools is not none %}{% for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '[' + message['role'] + ']\\n\\n' + message['content'] | trim }}
    {%- elif 'tool_calls' in message %}
        {%- for call in message.tool_calls %}
            {%- set tool_call = call.function %}
            {{- tool_call.name + "(" }}
            {%- for arg_name, arg_val in tool_call.arguments | items %}
                {{- arg_name + '="' ~ arg_val ~ '"' }}{%- if not loop.last %}{{- ", " }}{%- endif %}
            {%- endfor %}{{- ")" }}
        {%- endfor %}
    {%- elif message.role == "tool" %}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}{%- else %}{{- message.content }}{%- endif %}
    {%- endif %}
{%- endfor %}"""

MISTRAL = """\
{%- set user_messages = messages | selectattr("role", "equalto", "user") | list %}
{%- for message in messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}{{- '"' + key + '": "' + val + '"' }}{%- else %}{{- '"' + key + '": ' + val | tojson }}{%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}{%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {{- "[INST] " + message["content"] + "[/INST]" }}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function | tojson %}
            {{- out[:-1] }}{{- ', "id": "' + tool_call.id + '"}' }}{%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}{{- " " + message["content"] | trim + eos_token }}
    {%- elif message["role"] == "tool" %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content | string + ', "call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- endif %}
{%- endfor %}"""

# Template, and whether it joins arguments to text and so wants them as text.
TEMPLATES = [(DEEPSEEK_V3, True), (DEEPSEEK_V31, False), (QWEN, False), (LLAMA, False), (MISTRAL, False)]


def call(identity, name, arguments):
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def tool(name, description, parameters):
    function = {"name": name, "parameters": parameters}
    if description:
        function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


WEATHER = tool("get_weather", "The weather of a \"place\", now.\nIn °C.", {
    "type": "object", "required": ["place"], "additionalProperties": False,
    "properties": {"place": {"type": "string", "description": "城市 <b>"}, "unit": {"enum": ["c", "f"], "default": "c"},
                   "days": {"type": "integer", "minimum": 0, "maximum": 1e2, "multipleOf": 1e-7}}})
ADD = tool("add", "", {"type": "object", "properties": {"z": {"type": "number"}, "a": {"type": "number"}}})
NOW = tool("now.utc-2", "Time.", {})

USER = {"role": "user", "content": "How warm is it in 東京?"}
SYSTEM = {"role": "system", "content": "Be brief."}
CALL = {"role": "assistant", "content": "", "tool_calls": [call("call00001", "get_weather", '{"place": "東京", "unit": "c"}')]}
RESULT = {"role": "tool", "content": '{"celsius": 21.5}', "tool_call_id": "call00001"}
TWO = {"role": "assistant", "content": "", "tool_calls": [
    call("call00002", "add", '{"z": 1, "a": -2.50, "n": null, "t": [true, {"x": 0.001}]}'), call("call00003", "now.utc-2", "{}")]}
RESULTS = [{"role": "tool", "content": "-1.5", "tool_call_id": "call00002"}, {"role": "tool", "content": "12:00\n", "tool_call_id": "call00003"}]
ANSWER = {"role": "assistant", "content": "21.5 °C."}

CONVERSATIONS = [
    ([USER], []),
    ([SYSTEM, USER], [WEATHER]),
    ([SYSTEM, USER], [WEATHER, ADD, NOW]),
    ([USER, CALL, RESULT], [WEATHER]),
    ([SYSTEM, USER, CALL, RESULT, ANSWER, {"role": "user", "content": "And 1 + -2.5, and the time?"}, TWO, *RESULTS], [WEATHER, ADD, NOW]),
    ([USER, TWO, *RESULTS, ANSWER, USER], []),
]


def for_template(messages, as_text):
    """Messages as transformers is given them: no content is None, and arguments are a value or a text."""
    result = []
    for message in messages:
        message = dict(message)
        if message.get("tool_calls"):
            message["content"] = message["content"] or None
            read = (lambda text: text) if as_text else json.loads
            message["tool_calls"] = [call(c["id"], c["function"]["name"], read(c["function"]["arguments"])) for c in message["tool_calls"]]
        result.append(message)
    return result


def render(source, as_text, messages, tools):
    compiled = chat_template_utils._compile_jinja_template(source)
    return compiled.render(messages=for_template(messages, as_text), tools=tools or None, documents=None, add_generation_prompt=True,
                           bos_token="<｜begin▁of▁sentence｜>", eos_token="<｜end▁of▁sentence｜>")


def cases():
    for index, (source, as_text) in enumerate(TEMPLATES):
        for messages, tools in CONVERSATIONS:
            yield {"template": index, "messages": messages, "tools": tools, "text": render(source, as_text, messages, tools)}


def cases_of(directory):
    """With the template of DeepSeek-V3's tokenizer_config.json, which joins arguments to text."""
    source = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))["chat_template"]
    for messages, tools in CONVERSATIONS:
        yield {"messages": messages, "tools": tools, "text": render(source, True, messages, tools)}
