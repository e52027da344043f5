-- On a tool message: what a person changed the arguments of its call to, as JSON.
ALTER TABLE exile_llm_message ADD COLUMN edited_arguments TEXT;
