{# A text inside a JSON column, NULL where it is not there: `json_text('metadata', ['device', 'type'])`. #}
{% macro json_text(column, keys) -%}
{% if target.type == 'clickhouse' %}JSONExtract({{ column }}, '{{ keys | join("', '") }}', 'Nullable(String)'){% else %}json_extract_string({{ column }}, '$.{{ keys | join(".") }}'){% endif %}
{%- endmacro %}
