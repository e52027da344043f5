PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE exile_migration (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
INSERT INTO exile_migration VALUES(1,'create tables','2026-11-30 18:49:32',1,X'68188f053020e7a55a68435de62d3c418b672ae6d63b552026fdb75faf0b3b390f22b4f917c845fc2e4034492acc760b',2758824);
INSERT INTO exile_migration VALUES(2,'drop message conversation','2026-11-30 18:49:32',1,X'168b4a437baa862ecf6e174812e061127370b7d1d352629d690fa15ac255aeb3eb4bcbb2fab51fb057e715e8fa5708fe',1425171);
INSERT INTO exile_migration VALUES(3,'add images','2026-11-30 18:49:32',1,X'a7536d4979a6e07b8ea52ef09a5692e6c4f9265a30e3417758c9496376ba5adba43936cc1352a5b3b6ebf7bcd220500c',573922);
INSERT INTO exile_migration VALUES(4,'add usage','2026-11-30 18:49:32',1,X'422d5c0a597b06bffeee9e849cff7f45fe1c08cd328294d7fb0b58a0b884370ccda6a6eb91804162553bca6658c5d8ef',1007576);
CREATE TABLE exile_user (
    seq        INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    name       TEXT NOT NULL UNIQUE,
    role       TEXT NOT NULL CHECK (role IN ('admin', 'author', 'user')),
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO exile_user VALUES(1,'user_01a22dca744672cc8612daa326e40caa','admin','admin',1796064572486);
INSERT INTO exile_user VALUES(2,'user_01a22dca7f9b7ff781bd369d0b303346','ana','user',1796064575387);
CREATE TABLE exile_key (
    seq          INTEGER PRIMARY KEY,
    id           TEXT NOT NULL UNIQUE,
    user         TEXT NOT NULL REFERENCES exile_user (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    prefix       TEXT NOT NULL,
    digest       BLOB NOT NULL UNIQUE,
    scopes       TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    last_used_at INTEGER,
    revoked_at   INTEGER,
    expires_at   INTEGER
) STRICT;
INSERT INTO exile_key VALUES(1,'key_01a22dca74477d03b55ba08aa5fdac6c','user_01a22dca744672cc8612daa326e40caa','local.key','exk_7k04lM',X'7324da6606cc1002f2b944070882d9cc3ecc98eaaab7472ee4a4b33984fb89e4','[]',1796064572487,1796064575385,NULL,NULL);
INSERT INTO exile_key VALUES(2,'key_01a22dca7fa475a186ca2cd8877622ec','user_01a22dca7f9b7ff781bd369d0b303346','laptop','exk_BS1SRG',X'3a8f6b95c60992188182564627ea2ed6d0acc7882301eb0e2662458b9a227c07','[]',1796064575396,1796064575790,NULL,NULL);
CREATE TABLE exile_sign_in (
    digest     BLOB PRIMARY KEY,
    user       TEXT NOT NULL REFERENCES exile_user (id) ON DELETE CASCADE,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO exile_sign_in VALUES(X'606083d6af87771a286194fdadf619817f64fa026827074c24511601fa63d663','user_01a22dca744672cc8612daa326e40caa',1796065172504);
INSERT INTO exile_sign_in VALUES(X'fdc4ddb6e322eb67de2bfb3eed9140acfb238d30635391ceaf20e3feae1f731a','user_01a22dca744672cc8612daa326e40caa',1796065188984);
CREATE TABLE exile_session (
    digest     BLOB PRIMARY KEY,
    user       TEXT NOT NULL REFERENCES exile_user (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE exile_llm_conversation (
    seq           INTEGER PRIMARY KEY,
    id            TEXT NOT NULL UNIQUE,
    owner         TEXT NOT NULL,
    title         TEXT,
    graph         TEXT NOT NULL,
    skill_name    TEXT,
    provider      TEXT,
    model         TEXT,
    business      TEXT,
    system_prompt TEXT,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL
) STRICT;
INSERT INTO exile_llm_conversation VALUES(1,'conv_01a22dca8136737190e4d67ccc9a3c83','user_01a22dca7f9b7ff781bd369d0b303346','Trip','chat',NULL,NULL,NULL,NULL,NULL,1796064575798,1796064576154);
CREATE TABLE exile_llm_skill (
    name        TEXT PRIMARY KEY,
    description TEXT NOT NULL,
    prompt      TEXT NOT NULL,
    model       TEXT,
    temperature REAL,
    tools       TEXT NOT NULL,
    rag_config  TEXT,
    mcp_servers TEXT NOT NULL,
    source      TEXT NOT NULL
) STRICT;
CREATE TABLE exile_log (
    key         INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    head        INTEGER NOT NULL DEFAULT 0, -- at most the number of the last record, if there is one
    reserved    INTEGER NOT NULL DEFAULT 0, -- no number above this one was handed out
    epoch       INTEGER NOT NULL DEFAULT 0, -- rises with every claim
    worker      TEXT,
    lease_until INTEGER,                    -- null: nobody holds it
    active      TEXT,                       -- the run that has begun and not ended
    parked      INTEGER NOT NULL DEFAULT 0, -- the last record is a wait: `active` does not go on
    due         INTEGER,                    -- null: nothing to do; else its place in the queue
    wake        INTEGER,                    -- when there is something to do although it is parked
    parent      INTEGER REFERENCES exile_log (key), -- the log that this one is a fork of
    parent_at   INTEGER,                    -- the parent's last record that belongs to this one
    purged      INTEGER NOT NULL DEFAULT 0  -- records up to this number were removed
) STRICT;
INSERT INTO exile_log VALUES(1,'conv_01a22dca8136737190e4d67ccc9a3c83',10015,20006,2,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,0);
INSERT INTO exile_log VALUES(2,'run_01a22dca82ba7e3392c4f23e6189496a',5,10003,1,NULL,NULL,'run_01a22dca82ba7e3392c4f23e6189496a',1,NULL,NULL,NULL,NULL,0);
INSERT INTO exile_log VALUES(3,'run_01a22dca82fd7ffd9ffa708f5afbbe2d',12,10003,1,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,0);
INSERT INTO exile_log VALUES(4,'run_01a22dcabc6e78b18e782a16ed3f33d4',1,10003,1,'worker_01a22dcab4b77fd9b6fe9917f69ea7a0',1796064605962,'run_01a22dcabc6e78b18e782a16ed3f33d4',0,5,NULL,NULL,NULL,0);
CREATE TABLE exile_record (
    log      INTEGER NOT NULL REFERENCES exile_log (key) ON DELETE CASCADE,
    number   INTEGER NOT NULL,
    version  INTEGER NOT NULL,
    snapshot INTEGER, -- 1: it is one
    body     TEXT NOT NULL,
    PRIMARY KEY (log, number)
) STRICT, WITHOUT ROWID;
INSERT INTO exile_record VALUES(1,1,1,NULL,'{"ms":1796064576134,"started":{"run":"run_01a22dca828475aea5cfb3e74989c31b","graph":"chat","bundle":"sha256:aa29a6cefa2dbd906c3b1840e7d493b903235b86c370f6dc0cda00bbe074ad31","owner":"user_01a22dca7f9b7ff781bd369d0b303346","conversation":"conv_01a22dca8136737190e4d67ccc9a3c83","options":{"key":"key_01a22dca7fa475a186ca2cd8877622ec"},"d":{"messages":{"messages":["msg_01a22dca827a73a587266f702cbcc93f"]}},"b":{"messages":[]},"n":["answer:1"]}}');
INSERT INTO exile_record VALUES(1,4,1,NULL,'{"ms":1796064576135,"intent":{"t":"answer:1","c":"model","model":"mock/mock"}}');
INSERT INTO exile_record VALUES(1,8,1,NULL,'{"ms":1796064576136,"called":{"t":"answer:1","c":"model","took":0,"r":{"message":{"id":"msg_01a22dca82887b3a84903492697b4a9e"}},"m":{"model":"mock/mock","usage":{"in":2,"out":5},"first_ms":0,"finish":"stop"},"marks":[5,20,1,24,1,12],"shown":true}}');
INSERT INTO exile_record VALUES(1,10,1,NULL,'{"ms":1796064576137,"step":{"s":1,"o":[{"t":"answer:1","took":2}],"d":{"messages":{"messages":["msg_01a22dca82887b3a84903492697b4a9e"]}}}}');
INSERT INTO exile_record VALUES(1,12,1,NULL,'{"ms":1796064576137,"ended":{"run":"run_01a22dca828475aea5cfb3e74989c31b","status":"finished","usage":{"in":2,"out":5},"output":["messages"]}}');
INSERT INTO exile_record VALUES(1,10004,1,NULL,'{"ms":1796064576155,"started":{"run":"run_6fde65361ccefde6811b4abfe2e8b7cd","graph":"chat","bundle":"sha256:aa29a6cefa2dbd906c3b1840e7d493b903235b86c370f6dc0cda00bbe074ad31","owner":"user_01a22dca7f9b7ff781bd369d0b303346","conversation":"conv_01a22dca8136737190e4d67ccc9a3c83","options":{"key":"key_01a22dca7fa475a186ca2cd8877622ec"},"d":{"messages":{"messages":["msg_6fde65361ccefde6811b4abfe2e8b7cd"]}},"n":["answer:1"]}}');
INSERT INTO exile_record VALUES(1,10007,1,NULL,'{"ms":1796064576156,"intent":{"t":"answer:1","c":"model","model":"mock/mock"}}');
INSERT INTO exile_record VALUES(1,10011,1,NULL,'{"ms":1796064576156,"called":{"t":"answer:1","c":"model","took":0,"r":{"message":{"id":"msg_01a22dca829c7ad495359cc7094d010e"}},"m":{"model":"mock/mock","usage":{"in":8,"out":6},"first_ms":0,"finish":"stop"},"marks":[10008,16,1,16,1,14],"shown":true}}');
INSERT INTO exile_record VALUES(1,10013,1,NULL,'{"ms":1796064576157,"step":{"s":1,"o":[{"t":"answer:1"}],"d":{"messages":{"messages":["msg_01a22dca829c7ad495359cc7094d010e"]}}}}');
INSERT INTO exile_record VALUES(1,10015,1,NULL,'{"ms":1796064576157,"ended":{"run":"run_6fde65361ccefde6811b4abfe2e8b7cd","status":"finished","usage":{"in":8,"out":6},"output":["messages"]}}');
INSERT INTO exile_record VALUES(2,1,1,NULL,'{"ms":1796064576187,"started":{"run":"run_01a22dca82ba7e3392c4f23e6189496a","graph":"ask","bundle":"sha256:227c8b18f60d4ebf04931089e7d6bca5f31970b78935ecf804a0eedcbd144f49","owner":"user_01a22dca7f9b7ff781bd369d0b303346","options":{"key":"key_01a22dca7fa475a186ca2cd8877622ec"},"d":{"messages":{"messages":["msg_01a22dca82b679b98b45d7c4aacabcbb"]}},"b":{"messages":[],"said":null},"n":["ask:1"]}}');
INSERT INTO exile_record VALUES(2,4,1,NULL,'{"ms":1796064576222,"asked":{"id":"int_01a22dca82de729786bbb4e40a7a8870","t":"ask:1","c":"ask","q":{"reason":"human","text":"Which colour?","schema":{"type":"string"}}}}');
INSERT INTO exile_record VALUES(2,5,1,NULL,'{"ms":1796064576226,"waiting":{"run":"run_01a22dca82ba7e3392c4f23e6189496a","asked":[{"id":"int_01a22dca82de729786bbb4e40a7a8870","t":"ask:1","c":"ask","q":{"reason":"human","text":"Which colour?","schema":{"type":"string"}}}]}}');
INSERT INTO exile_record VALUES(3,1,1,NULL,'{"ms":1796064576262,"started":{"run":"run_01a22dca82fd7ffd9ffa708f5afbbe2d","graph":"chat","bundle":"sha256:aa29a6cefa2dbd906c3b1840e7d493b903235b86c370f6dc0cda00bbe074ad31","owner":"user_01a22dca7f9b7ff781bd369d0b303346","options":{"model":"mock/none","key":"key_01a22dca7fa475a186ca2cd8877622ec"},"d":{"messages":{"messages":["msg_01a22dca82fd71ac987fef7cac0dfc9c"]}},"b":{"messages":[]},"n":["answer:1"]}}');
INSERT INTO exile_record VALUES(3,4,1,NULL,'{"ms":1796064576266,"intent":{"t":"answer:1","c":"model","model":"mock/none"}}');
INSERT INTO exile_record VALUES(3,8,1,NULL,'{"ms":1796064576266,"called":{"t":"answer:1","c":"model","took":0,"r":{"message":{"id":"msg_01a22dca830a73d38647af6621d4a941"}},"m":{"model":"mock/none","usage":{"in":1,"out":5},"first_ms":0,"finish":"stop"},"marks":[5,16,1,16,1,4],"shown":true}}');
INSERT INTO exile_record VALUES(3,10,1,NULL,'{"ms":1796064576267,"step":{"s":1,"o":[{"t":"answer:1","took":1}],"d":{"messages":{"messages":["msg_01a22dca830a73d38647af6621d4a941"]}}}}');
INSERT INTO exile_record VALUES(3,12,1,NULL,'{"ms":1796064576267,"ended":{"run":"run_01a22dca82fd7ffd9ffa708f5afbbe2d","status":"finished","usage":{"in":1,"out":5},"output":["messages"]}}');
INSERT INTO exile_record VALUES(4,1,1,NULL,'{"ms":1796064590969,"started":{"run":"run_01a22dcabc6e78b18e782a16ed3f33d4","graph":"chat","bundle":"sha256:aa29a6cefa2dbd906c3b1840e7d493b903235b86c370f6dc0cda00bbe074ad31","owner":"user_01a22dca7f9b7ff781bd369d0b303346","options":{"key":"key_01a22dca7fa475a186ca2cd8877622ec"},"d":{"messages":{"messages":["msg_01a22dcabc6d79aaa219c437b5347e10"]}},"b":{"messages":[]},"n":["answer:1"]}}');
INSERT INTO exile_record VALUES(4,4,1,NULL,'{"ms":1796064590984,"intent":{"t":"answer:1","c":"model","model":"mock/mock"}}');
CREATE TABLE exile_cut (
    log    INTEGER NOT NULL REFERENCES exile_log (key) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    PRIMARY KEY (log, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE exile_input (
    seq      INTEGER PRIMARY KEY,
    log      INTEGER NOT NULL REFERENCES exile_log (key) ON DELETE CASCADE,
    id       TEXT NOT NULL,
    body     TEXT,
    consumed INTEGER, -- the log's head once it was consumed
    UNIQUE (log, id)
) STRICT;
INSERT INTO exile_input VALUES(1,1,'start_run_01a22dca828475aea5cfb3e74989c31b',NULL,1);
INSERT INTO exile_input VALUES(2,1,'start_run_6fde65361ccefde6811b4abfe2e8b7cd',NULL,10004);
INSERT INTO exile_input VALUES(3,2,'start_run_01a22dca82ba7e3392c4f23e6189496a',NULL,1);
INSERT INTO exile_input VALUES(4,3,'start_run_01a22dca82fd7ffd9ffa708f5afbbe2d',NULL,1);
INSERT INTO exile_input VALUES(5,4,'start_run_01a22dcabc6e78b18e782a16ed3f33d4',NULL,1);
CREATE TABLE exile_blob (
    id     TEXT PRIMARY KEY,
    body   BLOB NOT NULL,
    put_at INTEGER NOT NULL -- within an hour of when it was last put
) STRICT;
INSERT INTO exile_blob VALUES('sha256:aa29a6cefa2dbd906c3b1840e7d493b903235b86c370f6dc0cda00bbe074ad31',X'7b226772617068223a7b2270617468223a226772617068732f636861742e79616d6c222c2274657874223a2267726170683a20636861745c6e6d6f64653a206c696e6561725c6e696e7075743a205b6d657373616765735d5c6e6f75747075743a205b6d657373616765735d5c6e73746174653a207b206d657373616765733a207b207265647563653a206d65737361676573207d207d5c6e6e6f6465733a207b20616e737765723a207b206b696e643a206c6c6d207d207d5c6e6f726465723a205b616e737765725d5c6e227d2c22736b696c6c73223a7b7d2c22616c6961736573223a7b2264656661756c74223a7b226d6f64656c223a226d6f636b2f6d6f636b227d2c2266617374223a7b226d6f64656c223a226d6f636b2f6d6f636b227d7d7d',1796064576130);
INSERT INTO exile_blob VALUES('sha256:227c8b18f60d4ebf04931089e7d6bca5f31970b78935ecf804a0eedcbd144f49',X'7b226772617068223a7b2270617468223a226772617068732f61736b2e79616d6c222c2274657874223a2267726170683a2061736b5c6e696e7075743a205b6d657373616765735d5c6e6f75747075743a205b6d657373616765732c20736169645d5c6e73746174653a207b206d657373616765733a207b207265647563653a206d65737361676573207d2c20736169643a207b7d207d5c6e6e6f6465733a5c6e202061736b3a207b206b696e643a2068756d616e2c2061736b3a205c22576869636820636f6c6f75723f5c222c20696e746f3a2073616964207d5c6e2020616e737765723a207b206b696e643a206c6c6d207d5c6e65646765733a205b7b2066726f6d3a2053544152542c20746f3a2061736b207d2c207b2066726f6d3a2061736b2c20746f3a20616e73776572207d2c207b2066726f6d3a20616e737765722c20746f3a20454e44207d5d5c6e227d2c22736b696c6c73223a7b7d2c22616c6961736573223a7b2264656661756c74223a7b226d6f64656c223a226d6f636b2f6d6f636b227d2c2266617374223a7b226d6f64656c223a226d6f636b2f6d6f636b227d7d7d',1796064576182);
CREATE TABLE exile_blob_use (
    log    INTEGER NOT NULL REFERENCES exile_log (key) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    blob   TEXT NOT NULL,
    PRIMARY KEY (log, number, blob)
) STRICT, WITHOUT ROWID;
CREATE TABLE exile_run (
    seq              INTEGER PRIMARY KEY,
    id               TEXT NOT NULL UNIQUE,
    owner            TEXT NOT NULL,
    log              INTEGER NOT NULL REFERENCES exile_log (key) ON DELETE CASCADE,
    graph            TEXT NOT NULL,
    bundle           TEXT NOT NULL,
    conversation     TEXT REFERENCES exile_llm_conversation (id) ON DELETE CASCADE,
    status           TEXT NOT NULL CHECK (status IN (
                         'queued', 'running', 'waiting', 'finished', 'failed', 'cancelled',
                         'needs_attention')),
    error            TEXT,
    input            TEXT NOT NULL,
    input_tokens     INTEGER NOT NULL DEFAULT 0,
    cached_tokens    INTEGER NOT NULL DEFAULT 0,
    output_tokens    INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens INTEGER NOT NULL DEFAULT 0,
    created_at       INTEGER NOT NULL,
    started_at       INTEGER,
    ended_at         INTEGER,
    first            INTEGER, -- null: no record yet
    last             INTEGER, -- null: the log's head, while it goes on
    trace_id         TEXT
, written_tokens INTEGER NOT NULL DEFAULT 0) STRICT;
INSERT INTO exile_run VALUES(1,'run_01a22dca828475aea5cfb3e74989c31b','user_01a22dca7f9b7ff781bd369d0b303346',1,'chat','sha256:aa29a6cefa2dbd906c3b1840e7d493b903235b86c370f6dc0cda00bbe074ad31','conv_01a22dca8136737190e4d67ccc9a3c83','finished',NULL,'{"messages":["msg_01a22dca827a73a587266f702cbcc93f"]}',2,0,5,0,1796064576132,1796064576134,1796064576137,1,12,NULL,0);
INSERT INTO exile_run VALUES(2,'run_6fde65361ccefde6811b4abfe2e8b7cd','user_01a22dca7f9b7ff781bd369d0b303346',1,'chat','sha256:aa29a6cefa2dbd906c3b1840e7d493b903235b86c370f6dc0cda00bbe074ad31','conv_01a22dca8136737190e4d67ccc9a3c83','finished',NULL,'{"messages":["msg_6fde65361ccefde6811b4abfe2e8b7cd"]}',8,0,6,0,1796064576154,1796064576155,1796064576157,10004,10015,NULL,0);
INSERT INTO exile_run VALUES(3,'run_01a22dca82ba7e3392c4f23e6189496a','user_01a22dca7f9b7ff781bd369d0b303346',2,'ask','sha256:227c8b18f60d4ebf04931089e7d6bca5f31970b78935ecf804a0eedcbd144f49',NULL,'waiting',NULL,'{"messages":["msg_01a22dca82b679b98b45d7c4aacabcbb"]}',0,0,0,0,1796064576186,1796064576187,NULL,1,5,NULL,0);
INSERT INTO exile_run VALUES(4,'run_01a22dca82fd7ffd9ffa708f5afbbe2d','user_01a22dca7f9b7ff781bd369d0b303346',3,'chat','sha256:aa29a6cefa2dbd906c3b1840e7d493b903235b86c370f6dc0cda00bbe074ad31',NULL,'finished',NULL,'{"messages":["msg_01a22dca82fd71ac987fef7cac0dfc9c"]}',1,0,5,0,1796064576253,1796064576262,1796064576267,1,12,NULL,0);
INSERT INTO exile_run VALUES(5,'run_01a22dcabc6e78b18e782a16ed3f33d4','user_01a22dca7f9b7ff781bd369d0b303346',4,'chat','sha256:aa29a6cefa2dbd906c3b1840e7d493b903235b86c370f6dc0cda00bbe074ad31',NULL,'running',NULL,'{"messages":["msg_01a22dcabc6d79aaa219c437b5347e10"]}',0,0,0,0,1796064590959,1796064590969,NULL,1,NULL,NULL,0);
CREATE TABLE exile_llm_message (
    seq          INTEGER PRIMARY KEY,
    id           TEXT NOT NULL,
    run          TEXT NOT NULL,
    log          INTEGER NOT NULL REFERENCES exile_log (key) ON DELETE CASCADE,
    number       INTEGER NOT NULL,
    shown        INTEGER NOT NULL,
    role         TEXT NOT NULL CHECK (role IN ('system', 'user', 'assistant', 'tool')),
    content      TEXT NOT NULL,
    reasoning    TEXT,
    tool_calls   TEXT,
    tool_call_id TEXT,
    tool_name    TEXT,
    model        TEXT,
    opaque       TEXT,
    covers       TEXT, -- of a summary: the last message that it stands for
    created_at   INTEGER NOT NULL, images TEXT,
    UNIQUE (id, log)
) STRICT;
INSERT INTO exile_llm_message VALUES(1,'msg_01a22dca827a73a587266f702cbcc93f','run_01a22dca828475aea5cfb3e74989c31b',1,1,1,'user','hello 你好',NULL,NULL,NULL,NULL,NULL,NULL,NULL,1796064576134,NULL);
INSERT INTO exile_llm_message VALUES(2,'msg_01a22dca82887b3a84903492697b4a9e','run_01a22dca828475aea5cfb3e74989c31b',1,8,1,'assistant','[mock] 你说：hello 你好',NULL,NULL,NULL,NULL,'mock/mock',NULL,NULL,1796064576136,NULL);
INSERT INTO exile_llm_message VALUES(3,'msg_6fde65361ccefde6811b4abfe2e8b7cd','run_6fde65361ccefde6811b4abfe2e8b7cd',1,10004,1,'user','second',NULL,NULL,NULL,NULL,NULL,NULL,NULL,1796064576155,NULL);
INSERT INTO exile_llm_message VALUES(4,'msg_01a22dca829c7ad495359cc7094d010e','run_6fde65361ccefde6811b4abfe2e8b7cd',1,10011,1,'assistant','[mock] You said: second',NULL,NULL,NULL,NULL,'mock/mock',NULL,NULL,1796064576156,NULL);
INSERT INTO exile_llm_message VALUES(5,'msg_01a22dca82b679b98b45d7c4aacabcbb','run_01a22dca82ba7e3392c4f23e6189496a',2,1,1,'user','paint',NULL,NULL,NULL,NULL,NULL,NULL,NULL,1796064576187,NULL);
INSERT INTO exile_llm_message VALUES(6,'msg_01a22dca82fd71ac987fef7cac0dfc9c','run_01a22dca82fd7ffd9ffa708f5afbbe2d',3,1,1,'user','x',NULL,NULL,NULL,NULL,NULL,NULL,NULL,1796064576262,NULL);
INSERT INTO exile_llm_message VALUES(7,'msg_01a22dca830a73d38647af6621d4a941','run_01a22dca82fd7ffd9ffa708f5afbbe2d',3,8,1,'assistant','[mock] You said: x',NULL,NULL,NULL,NULL,'mock/none',NULL,NULL,1796064576266,NULL);
INSERT INTO exile_llm_message VALUES(8,'msg_01a22dcabc6d79aaa219c437b5347e10','run_01a22dcabc6e78b18e782a16ed3f33d4',4,1,1,'user','slow',NULL,NULL,NULL,NULL,NULL,NULL,NULL,1796064590969,NULL);
CREATE TABLE exile_idempotency (
    owner       TEXT NOT NULL,
    key         TEXT NOT NULL,
    route       TEXT NOT NULL,
    body_sha256 TEXT NOT NULL,
    begun_at    INTEGER NOT NULL,
    status      INTEGER, -- null: in flight
    headers     TEXT,
    body        BLOB,
    PRIMARY KEY (owner, key, route)
) STRICT;
INSERT INTO exile_idempotency VALUES('user_01a22dca7f9b7ff781bd369d0b303346','k1','POST /api/conversations/conv_01a22dca8136737190e4d67ccc9a3c83/messages','sha256:5e1f15b42b5e2bcaae097ca0c5e63026992683d850994192937163ab10baaca2',1796064576153,200,'[["content-type","application/json"],["x-exile-run","run_6fde65361ccefde6811b4abfe2e8b7cd"]]',X'7b226d657373616765223a7b226964223a226d73675f3031613232646361383239633761643439353335396363373039346430313065222c22726f6c65223a22617373697374616e74222c22636f6e74656e74223a225b6d6f636b5d20596f7520736169643a207365636f6e64222c226d6f64656c223a226d6f636b2f6d6f636b222c2272756e223a2272756e5f3666646536353336316363656664653638313162346162666532653862376364222c22637265617465645f6174223a22323032362d31312d33305431383a34393a33362e3135365a227d2c2272756e223a7b226964223a2272756e5f3666646536353336316363656664653638313162346162666532653862376364222c226772617068223a2263686174222c2262756e646c65223a227368613235363a61613239613663656661326462643930366333623138343065376434393362393033323335623836633337306636646330636461303062626530373461643331222c22636f6e766572736174696f6e5f6964223a22636f6e765f3031613232646361383133363733373139306534643637636363396133633833222c22737461747573223a2266696e6973686564222c226572726f72223a6e756c6c2c22696e7465727275707473223a5b5d2c226f70656e5f63616c6c73223a5b5d2c227573616765223a7b22696e7075745f746f6b656e73223a382c226361636865645f746f6b656e73223a302c227772697474656e5f746f6b656e73223a302c226f75747075745f746f6b656e73223a362c22726561736f6e696e675f746f6b656e73223a307d2c226e756d62657273223a5b31303030342c31303031355d2c22637265617465645f6174223a22323032362d31312d33305431383a34393a33362e3135345a222c22737461727465645f6174223a22323032362d31312d33305431383a34393a33362e3135355a222c22656e6465645f6174223a22323032362d31312d33305431383a34393a33362e3135375a222c2274726163655f6964223a6e756c6c7d2c22696e7465727275707473223a5b5d2c226369746174696f6e73223a5b5d7d');
CREATE TABLE exile_probe (
    id   INTEGER PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;
CREATE TABLE exile_usage (
    seq              INTEGER PRIMARY KEY,
    id               TEXT NOT NULL UNIQUE,
    at               INTEGER NOT NULL, -- when it was asked
    owner            TEXT NOT NULL,
    key              TEXT,
    provider         TEXT NOT NULL,
    model            TEXT NOT NULL,
    business         TEXT,
    graph            TEXT,
    run              TEXT,
    input_tokens     INTEGER NOT NULL,
    cached_tokens    INTEGER NOT NULL, -- within the input
    written_tokens   INTEGER NOT NULL, -- within the input
    output_tokens    INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL, -- within the output
    cost             INTEGER,          -- in millionths; null: no price is known
    currency         TEXT NOT NULL,
    took_ms          INTEGER NOT NULL,
    first_ms         INTEGER,
    attempts         INTEGER NOT NULL,
    outcome          TEXT NOT NULL,    -- ok, cancelled, open, lost or a fault's code
    estimated        INTEGER NOT NULL, -- 1: nobody counted the tokens
    last             INTEGER NOT NULL  -- 1: no other model was asked after it
) STRICT;
INSERT INTO exile_usage VALUES(1,'01a22dca82887636ae4faa7834fda75c',1796064576136,'user_01a22dca7f9b7ff781bd369d0b303346','key_01a22dca7fa475a186ca2cd8877622ec','mock','mock',NULL,'chat','run_01a22dca828475aea5cfb3e74989c31b',2,0,0,5,0,0,'USD',0,0,1,'ok',0,1);
INSERT INTO exile_usage VALUES(2,'01a22dca829c76eb97196559be4c24fc',1796064576156,'user_01a22dca7f9b7ff781bd369d0b303346','key_01a22dca7fa475a186ca2cd8877622ec','mock','mock',NULL,'chat','run_6fde65361ccefde6811b4abfe2e8b7cd',8,0,0,6,0,0,'USD',0,0,1,'ok',0,1);
INSERT INTO exile_usage VALUES(3,'01a22dca830a767986c996e0a42c7573',1796064576266,'user_01a22dca7f9b7ff781bd369d0b303346','key_01a22dca7fa475a186ca2cd8877622ec','mock','none',NULL,'chat','run_01a22dca82fd7ffd9ffa708f5afbbe2d',1,0,0,5,0,0,'USD',0,0,1,'ok',0,1);
INSERT INTO exile_usage VALUES(4,'01a22dcabc887e2680cd5b0e6ab9a62f',1796064590984,'user_01a22dca7f9b7ff781bd369d0b303346','key_01a22dca7fa475a186ca2cd8877622ec','mock','mock',NULL,'chat','run_01a22dcabc6e78b18e782a16ed3f33d4',16,0,0,0,0,0,'USD',0,NULL,1,'open',1,1);
CREATE TABLE exile_quota (
    kind       TEXT NOT NULL CHECK (kind IN ('user', 'key', 'business', 'model')),
    name       TEXT NOT NULL,
    body       TEXT NOT NULL,
    changed_at INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT;
INSERT INTO exile_quota VALUES('user','ana','{"requests":["1000/day"]}',1796064586899);
CREATE INDEX exile_key_user ON exile_key (user);
CREATE INDEX exile_llm_conversation_owner ON exile_llm_conversation (owner);
CREATE INDEX exile_log_due ON exile_log (due) WHERE due IS NOT NULL;
CREATE INDEX exile_log_wake ON exile_log (wake) WHERE wake IS NOT NULL;
CREATE INDEX exile_log_parent ON exile_log (parent) WHERE parent IS NOT NULL;
CREATE INDEX exile_record_snapshot ON exile_record (log, number) WHERE snapshot = 1;
CREATE INDEX exile_input_unread ON exile_input (log, seq) WHERE body IS NOT NULL;
CREATE INDEX exile_blob_use_blob ON exile_blob_use (blob);
CREATE INDEX exile_run_owner ON exile_run (owner);
CREATE INDEX exile_run_log ON exile_run (log);
CREATE INDEX exile_run_open ON exile_run (log) WHERE ended_at IS NULL;
CREATE INDEX exile_run_conversation ON exile_run (conversation);
CREATE INDEX exile_llm_message_log ON exile_llm_message (log);
CREATE INDEX exile_idempotency_begun ON exile_idempotency (begun_at);
CREATE INDEX exile_usage_at ON exile_usage (at);
CREATE INDEX exile_usage_owner ON exile_usage (owner, at);
CREATE INDEX exile_usage_open ON exile_usage (outcome) WHERE outcome = 'open';
COMMIT;
