-- How many runs of everybody are queued, running, waiting or in need of attention, and which.
CREATE INDEX exile_run_by_status ON exile_run (status);
