-- Pictures of a message: a JSON list of URLs, null where there are none.
ALTER TABLE exile_llm_message ADD COLUMN images TEXT;
