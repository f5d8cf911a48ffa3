-- Functions over JSON in text: a path of names and places; what is not there, or is something else, is NULL.
CREATE VIEW bodies AS
SELECT id, '{"qty":' || qty || ',"who":{"name":"' || "user" || '","tags":["a",2,null]},"ok":true,"half":0.5}' AS body FROM e;

CREATE MATERIALIZED VIEW parts AS
SELECT id,
       json_get_int(body, 'qty') AS qty,
       json_get_str(body, 'who', 'name') AS name,
       json_get_str(body, 'qty') AS no_text,
       json_get_int(body, 'who', 'tags', 1) AS second,
       json_get_bool(body, 'ok') AS ok,
       json_get_float(body, 'half') AS half,
       json_get_json(body, 'who', 'tags') AS tags,
       json_as_text(body, 'qty') AS qty_text,
       json_contains(body, 'who', 'age') AS has_age,
       json_length(body, 'who', 'tags') AS tag_count,
       array_to_string(json_object_keys(body), ' ') AS keys,
       json_get_int('not json', 'a') AS of_nothing
FROM bodies;

CREATE MATERIALIZED VIEW by_name AS
SELECT json_get_str(body, 'who', 'name') AS name, sum(json_get_int(body, 'qty')) AS qty FROM bodies GROUP BY json_get_str(body, 'who', 'name');
