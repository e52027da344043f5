-- Who claims a log finds it without going through those that are being driven: first what a process
-- left that was lost, then what nobody holds, in the order of the queue.
DROP INDEX exile_log_due;
CREATE INDEX exile_log_free ON exile_log (due) WHERE due IS NOT NULL AND lease_until IS NULL;
CREATE INDEX exile_log_lapsed ON exile_log (lease_until)
    WHERE due IS NOT NULL AND lease_until IS NOT NULL;
