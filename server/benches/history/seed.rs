//! The rows that many runs of the administrator's leave, written at once.

use std::path::Path;

use exile_server::store;
use sqlx::ConnectOptions as _;
use tokio::runtime::Runtime;

/// Every run has a log and the two records of its beginning and end, and cost a call of a model.
/// Each tenth failed, each thousandth conversation's last run is one of them.
const ROWS: [&str; 5] = [
    "INSERT INTO exile_bundle (id) SELECT 'sha256:' || n FROM n WHERE n = 1",
    "INSERT INTO exile_log (key, id, head, reserved)
     SELECT 1000000 + n, 'seed_' || n, 2, 9 FROM n",
    "INSERT INTO exile_record (log, number, version, body)
     SELECT 1000000 + n, 2, 1, '{}' FROM n",
    "INSERT INTO exile_run (id, owner, log, graph, bundle, status, input, created_at, started_at,
                            ended_at, first, last)
     SELECT 'seed_' || n, (SELECT id FROM exile_user LIMIT 1), 1000000 + n,
            iif(n % 3, 'chat', 'agent'), (SELECT key FROM exile_bundle WHERE id = 'sha256:1'), iif(n % 10, 'finished', 'failed'), '{}',
            1767225600000 + n, 1767225600000 + n, 1767225600000 + n, 1, 2 FROM n",
    "INSERT INTO exile_llm_conversation (id, owner, title, graph, created_at, updated_at)
     SELECT 'seed_' || n, (SELECT id FROM exile_user LIMIT 1), 'Title ' || n, 'chat',
            1767225600000 + n, 1767225600000 + n FROM n",
];

/// Writes them into the database of a home that nobody holds.
pub fn runs(home: &Path, count: u32) {
    Runtime::new().unwrap().block_on(async {
        let mut connection = store::options(&home.join("exile.db")).connect().await.unwrap();
        for rows in ROWS {
            let numbers = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n";
            let (head, select) = rows.split_once("SELECT").unwrap();
            let seed = format!("{head}{numbers} WHERE n < {count}) SELECT{select}");
            sqlx::raw_sql(sqlx::AssertSqlSafe(seed)).execute(&mut connection).await.unwrap();
        }
    });
}
