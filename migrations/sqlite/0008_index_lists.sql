-- Lists cost what they return, whatever else their owner has.
CREATE INDEX exile_run_status ON exile_run (owner, status);
CREATE INDEX exile_run_graph ON exile_run (owner, graph, status);
-- What administrators ask of everybody's (0011 has the index by status).
CREATE INDEX exile_run_by_graph ON exile_run (graph, status);
-- All runs of a conversation are found by their log (exile_run_log).
DROP INDEX exile_run_conversation;
CREATE INDEX exile_run_conversation ON exile_run (conversation, status);
-- What a user sees of a conversation, in the order in which it was said.
CREATE INDEX exile_llm_message_shown ON exile_llm_message (log, number)
    WHERE shown AND covers IS NULL;
