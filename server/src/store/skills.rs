//! Skills as rows: what the files hold, for whoever reads the database.

use serde_json::Value;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, codec};

/// A skill as its row shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct SkillRow {
    /// Unique.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The system prompt.
    pub prompt: String,
    /// Alias or `provider/model`.
    pub model: Option<String>,
    /// 0.0–2.0.
    pub temperature: Option<f64>,
    /// Names and patterns of tools.
    pub tools: Vec<String>,
    /// The retrieval policy.
    pub rag_config: Option<Value>,
    /// Names of MCP servers.
    pub mcp_servers: Vec<String>,
    /// Path of the file it comes from.
    pub source: String,
}

impl Store {
    /// Makes the rows equal to `skills`: those of every file.
    pub async fn sync_skills(&self, skills: &[SkillRow]) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        sqlx::query("DELETE FROM exile_llm_skill").execute(write.connection()).await?;
        for skill in skills {
            sqlx::query(
                "INSERT INTO exile_llm_skill
                     (name, description, prompt, model, temperature, tools, rag_config,
                      mcp_servers, source)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )
            .bind(&skill.name)
            .bind(&skill.description)
            .bind(&skill.prompt)
            .bind(&skill.model)
            .bind(skill.temperature)
            .bind(codec::json(&skill.tools)?)
            .bind(skill.rag_config.as_ref().map(codec::json).transpose()?)
            .bind(codec::json(&skill.mcp_servers)?)
            .bind(&skill.source)
            .execute(write.connection())
            .await?;
        }
        write.commit().await
    }

    /// Every skill, by name.
    pub async fn skills(&self) -> Result<Vec<SkillRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM exile_llm_skill ORDER BY name")
            .fetch_all(self.readers())
            .await?;
        rows.iter().map(from_row).collect()
    }
}

fn from_row(row: &SqliteRow) -> Result<SkillRow, StoreError> {
    Ok(SkillRow {
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        prompt: row.try_get("prompt")?,
        model: row.try_get("model")?,
        temperature: row.try_get("temperature")?,
        tools: codec::parsed(row, "tools")?,
        rag_config: codec::maybe_parsed(row, "rag_config")?,
        mcp_servers: codec::parsed(row, "mcp_servers")?,
        source: row.try_get("source")?,
    })
}
