//! What the configuration comes to, for given flags, variables and files.

use std::fs;
use std::path::Path;

use exile_engine::limits::FileLimits;
use expect_test::{Expect, expect};
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::process::schema::Subject;

/// Loads `yaml` as `exile.yaml` of an otherwise empty folder.
fn load_with(yaml: Option<&str>, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let folder = TempDir::new().unwrap();
    if let Some(yaml) = yaml {
        fs::write(folder.path().join("exile.yaml"), yaml).unwrap();
    }
    load_in(folder.path(), Flags::default(), variables)
}

fn load_in(folder: &Path, flags: Flags, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let variables = Variables::of(variables);
    load(&Surroundings { flags, variables, folder: folder.to_owned() })
}

/// What each alias stands for, and whether the mock is there.
fn check_aliases(yaml: Option<&str>, variables: &[(&str, &str)], expected: &Expect) {
    let config = load_with(yaml, variables).unwrap_or_else(|e| panic!("{e}: {e:#?}"));
    let mut lines = Vec::new();
    for (name, alias) in &config.aliases {
        let business = alias.business.iter().map(|(name, model)| format!(", {name} = {model}"));
        lines.push(format!("{name} = {}{}", alias.model, business.collect::<String>()));
    }
    lines.push(if config.mock.is_some() { "mock" } else { "no mock" }.to_owned());
    expected.assert_eq(&lines.join("\n"));
}

/// The findings of a wrong file, as `line:column code: message; fix`.
fn check_findings(yaml: &str, expected: &Expect) {
    let error = load_with(Some(yaml), &[]).expect_err("the file is wrong");
    let ConfigError::Findings { findings, .. } = error else { panic!("{error}") };
    let line =
        |f: &Finding| format!("{}:{} {}: {}; {}", f.line, f.column, f.code, f.message, f.fix);
    expected.assert_eq(&findings.iter().map(line).collect::<Vec<_>>().join("\n"));
}

#[test]
fn without_anything_the_mock_answers() {
    check_aliases(
        None,
        &[],
        &expect![[r"
        default = mock/mock
        fast = mock/mock
        mock"]],
    );
}

#[test]
fn with_a_key_its_provider_answers() {
    check_aliases(
        None,
        &[("DEEPSEEK_API_KEY", "k")],
        &expect![[r"
        default = deepseek/deepseek-flash
        fast = deepseek/deepseek-flash
        no mock"]],
    );
}

#[test]
fn without_deepseeks_key_the_default_falls_to_openai_then_gemini() {
    check_aliases(
        None,
        &[("OPENAI_API_KEY", "k"), ("GEMINI_API_KEY", "k")],
        &expect![[r"
        default = openai/gpt-5.1
        fast = openai/gpt-5-mini
        no mock"]],
    );
    check_aliases(
        None,
        &[("GEMINI_API_KEY", "k")],
        &expect![[r"
        default = gemini/gemini-3-flash
        fast = gemini/gemini-3-flash
        no mock"]],
    );
}

#[test]
fn in_production_a_missing_key_stays_missing() {
    check_aliases(
        None,
        &[("EXILE_ENV", "production")],
        &expect![[r"
        default = openai/gpt-5.1
        fast = openai/gpt-5.1
        no mock"]],
    );
}

#[test]
fn in_production_an_alias_that_nobody_wrote_asks_for_no_other_key() {
    let yaml = "environment: production\nmodels: { default: gemini/gemini-3-flash }\n";
    check_aliases(
        Some(yaml),
        &[("GEMINI_API_KEY", "k")],
        &expect![[r"
        default = gemini/gemini-3-flash
        fast = gemini/gemini-3-flash
        no mock"]],
    );
}

#[test]
fn an_empty_key_is_none() {
    check_aliases(
        None,
        &[("DEEPSEEK_API_KEY", "")],
        &expect![[r"
        default = mock/mock
        fast = mock/mock
        mock"]],
    );
}

#[test]
fn an_alias_has_an_environment_and_businesses() {
    let yaml = r#"
environment: ${EXILE_ENV:-development}
models:
  default:
    development: deepseek/deepseek-flash
    production: openai/gpt-5.1
    business: { marketing: gemini/gemini-3-flash }
  own: lab/qwen/qwen3
providers:
  lab: { base_url: "http://127.0.0.1:9/v1" }
"#;
    let keys = [("DEEPSEEK_API_KEY", "k"), ("GEMINI_API_KEY", "k")];
    check_aliases(
        Some(yaml),
        &keys,
        &expect![[r"
        default = deepseek/deepseek-flash, marketing = gemini/gemini-3-flash
        fast = deepseek/deepseek-flash
        own = lab/qwen/qwen3
        no mock"]],
    );
    let production = [("EXILE_ENV", "production")];
    check_aliases(
        Some(yaml),
        &production,
        &expect![[r"
        default = openai/gpt-5.1, marketing = gemini/gemini-3-flash
        fast = openai/gpt-5.1, marketing = gemini/gemini-3-flash
        own = lab/qwen/qwen3
        no mock"]],
    );
}

#[test]
fn everything_wrong_is_found_at_once() {
    check_findings(
        r"models:
  default: deepseek
  fast: nobody/x
  own: { production: openai/gpt-5.1 }
providers:
  lab: {}
  openai: { base_url: acme }
",
        &expect![[r#"
            2:12 model_name: "deepseek" is not provider/model; write e.g. deepseek/deepseek-flash
            3:9 provider_unknown: no provider is named `nobody`; name one of deepseek, openai, gemini, anthropic, lab, or add it under `providers`
            4:8 alias_empty: `own` stands for nothing in development; add `development: provider/model`
            6:8 base_url_missing: `lab` is not built in and has no `base_url`; add `base_url:`, the address before `/chat/completions` or `/messages`
            7:23 address: `base_url` is no address; begin it with https://"#]],
    );
}

#[test]
fn what_is_not_supported_says_so() {
    check_findings(
        r"http_tools: {}
mcp_servers: {}
plugins: {}
collections: {}
store: { database: 'postgres://x', redis: 'redis://x' }
models:
  embedding: local/minilm
traces: { content: true }
",
        &expect![[r"
            1:13 not_supported: `http_tools` is not supported by this version; take the section out
            2:14 not_supported: `mcp_servers` is not supported by this version; take the section out
            3:10 not_supported: `plugins` is not supported by this version; take the section out
            4:14 not_supported: `collections` is not supported by this version; take the section out
            5:20 not_supported: a database other than `sqlite` is not supported by this version; write `sqlite`, or leave it out; if it is a variable, unset that
            5:43 not_supported: Redis is not supported by this version; leave it out; if it is a variable, unset that
            7:14 not_supported: an embedding model is not supported by this version; take the alias out
            8:20 not_supported: content in traces is not supported by this version; write `content: false`, or leave it out"]],
    );
}

#[test]
fn quotas_that_cannot_be_kept_are_found() {
    check_findings(
        r"quotas:
  user: { '*': { requests: 60/h } }
  key: { ci: { tokens: 0.5/day } }
  business: { sales: { money: [1/day, 2/day] } }
",
        &expect![[r#"
            2:28 invalid_value: `requests`: "60/h" does not match "^[0-9]+/(min|day|month)$"; change the value
            3:24 invalid_value: `tokens`: "0.5/day" does not match "^[0-9]+/(min|day|month)$"; change the value"#]],
    );
    check_findings(
        "quotas: { model: { 'gpt*x': { requests: 1/min }, x: {} } }\n",
        &expect![[r"
        1:29 model_name: `gpt*x` is neither provider/model nor the beginning of one and a `*`; write e.g. lab/llava or lab/*
        1:53 model_name: `x` is neither provider/model nor the beginning of one and a `*`; write e.g. lab/llava or lab/*"]],
    );
}

#[test]
fn unknown_keys_and_wrong_types_are_found() {
    check_findings(
        r"enviroment: development
bind: [1]
providers: { deepseek: { key: x } }
",
        &expect![[r"
            1:1 unknown_key: the key `enviroment` means nothing here; did you mean `environment`?
            2:7 wrong_type: `bind` must be text, not a list; write text
            3:26 unknown_key: the key `key` means nothing here; there are: `api_key`, `base_url`, `first_byte_timeout`, `headers`, `idle_timeout`, `protocol`, `proxy`, `query`, `retries`, `timeout`, `total_timeout`"]],
    );
}

#[test]
fn a_variable_without_a_value_is_found_where_it_stands() {
    check_findings(
        r#"providers:
  deepseek: { api_key: "${NOWHERE}" }
  openai: { api_key: "${bad name}", proxy: "${OPEN" }
"#,
        &expect![[r"
            2:24 variable_unset: the environment variable NOWHERE is not set; set NOWHERE, put it into .env, or write ${NOWHERE:-default}
            3:22 variable_name: `${bad name}` names no variable; write ${NAME} or ${NAME:-default}; `$${` stands for a plain `${`
            3:44 variable_open: `${OPEN` is not closed; add the `}`; `$${` stands for a plain `${`"]],
    );
}

#[test]
fn flags_go_before_the_environment_before_dotenv_before_the_file() {
    let folder = TempDir::new().unwrap();
    let bind = |flag: Option<&str>, variable: Option<&str>| {
        let flags = Flags { bind: flag.map(str::to_owned), ..Flags::default() };
        let variables: Vec<_> = variable.into_iter().map(|v| ("EXILE_BIND", v)).collect();
        load_in(folder.path(), flags, &variables).unwrap().bind.port()
    };
    assert_eq!(bind(None, None), 8080);
    fs::write(folder.path().join("exile.yaml"), "bind: 127.0.0.1:1\n").unwrap();
    assert_eq!(bind(None, None), 1);
    fs::write(folder.path().join(".env"), "EXILE_BIND=127.0.0.1:2\n").unwrap();
    assert_eq!(bind(None, None), 2);
    assert_eq!(bind(None, Some("127.0.0.1:3")), 3);
    assert_eq!(bind(Some("localhost:4"), Some("127.0.0.1:3")), 4);
}

#[test]
fn the_file_is_found_by_walking_up_and_its_folder_is_the_base() {
    let folder = TempDir::new().unwrap();
    let deep = folder.path().join("a/b");
    fs::create_dir_all(&deep).unwrap();
    fs::create_dir(folder.path().join("graphs")).unwrap();
    fs::write(folder.path().join("exile.yaml"), "default_graph: agent\n").unwrap();
    let config = load_in(&deep, Flags::default(), &[]).unwrap();
    assert_eq!(config.default_graph, "agent");
    assert_eq!(config.places.home, folder.path().join(".exile"));
    assert_eq!(config.places.graphs, Some(folder.path().join("graphs")));
}

#[test]
fn a_named_file_that_is_missing_is_an_error() {
    let flags = Flags { config: Some("nowhere.yaml".into()), ..Flags::default() };
    let error = load_in(TempDir::new().unwrap().path(), flags, &[]).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }), "{error}");
}

#[test]
fn a_named_folder_of_graphs_that_is_missing_is_an_error() {
    let error = load_with(None, &[("EXILE_GRAPHS", "/nowhere")]).unwrap_err();
    assert!(error.to_string().contains("/nowhere"), "{error}");
}

#[test]
fn a_key_is_known_by_the_variable_that_the_file_names() {
    let yaml = r#"providers: { deepseek: { api_key: "${TEAM_KEY:-}" } }"#;
    let config = load_with(Some(yaml), &[("TEAM_KEY", "k1")]).unwrap();
    let deepseek = &config.providers[0];
    assert_eq!(deepseek.key_variable, "TEAM_KEY");
    assert_eq!(deepseek.api_key.as_ref().map(Secret::expose), Some("k1"));
}

#[test]
fn the_key_of_a_provider_is_not_sent_to_another_address() {
    let yaml = r#"providers: { openai: { base_url: "https://elsewhere.example/v1" } }"#;
    let config = load_with(Some(yaml), &[("OPENAI_API_KEY", "k")]).unwrap();
    assert_eq!(config.providers[1].api_key, None);
}

#[test]
fn no_key_is_ever_printed() {
    let yaml = r#"providers: { lab: { base_url: "http://lab", headers: { api-key: "${K}" } } }"#;
    let config = load_with(Some(yaml), &[("K", "canary-1"), ("OPENAI_API_KEY", "canary-2")]);
    let text = format!("{:?} {:#?}", config.as_ref().unwrap(), config.as_ref().unwrap().providers);
    assert!(!text.contains("canary"), "{text}");
}

#[test]
fn an_unreadable_dotenv_does_not_show_its_content() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join(".env"), "DEEPSEEK_API_KEY='canary\n").unwrap();
    let error = load_in(folder.path(), Flags::default(), &[]).unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains(".env") && !text.contains("canary"), "{text}");
}

#[test]
fn a_script_for_the_mock_is_read_from_the_home() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join(".exile")).unwrap();
    let script = "- { match: hello, reply: hi }\n";
    fs::write(folder.path().join(".exile/mock.yaml"), script).unwrap();
    let config = load_in(folder.path(), Flags::default(), &[]).unwrap();
    assert_eq!(config.mock.unwrap().0.len(), 1);
}

#[test]
fn what_cannot_stand_in_a_header_is_refused_and_not_shown() {
    check_findings(
        "providers:\n  acme:\n    base_url: https://acme.example/v1\n    api_key: \"sk-canary\\r\\nx: y\"\n    \
         headers: { \"x-a\": \"canary\\nb: c\", \"x\\r\\ny\": d, \"x b\": e }\n  \
         \"a\\nb\": { base_url: https://acme.example/v1 }\nmodels: { fast: \"acme/x\\r\\ny\" }\n",
        &expect![[r#"
            4:14 header: the key cannot be sent: it holds a line break or a control character; write it as one line
            5:23 header: the header "x-a" or its value cannot be sent; write letters, digits and `-`, and a value of one line
            5:49 header: the header "x\r\ny" or its value cannot be sent; write letters, digits and `-`, and a value of one line
            5:59 header: the header "x b" or its value cannot be sent; write letters, digits and `-`, and a value of one line
            6:11 provider_name: a provider cannot be named "a\nb"; choose another name, without `/`, spaces and line breaks
            7:17 model_name: "acme/x\r\ny" is not provider/model; write e.g. deepseek/deepseek-flash"#]],
    );
}

#[test]
fn a_provider_has_its_protocol_and_its_three_timeouts() {
    let yaml = "providers:\n  claude: { base_url: https://c.example, protocol: anthropic, timeout: 5s, \
                idle_timeout: 7s, total_timeout: 2m }\n";
    let config = load_with(Some(yaml), &[]).unwrap();
    let provider = config.providers.iter().find(|p| p.name == "claude").unwrap();
    assert_eq!(provider.protocol, Some(exile_nodes::providers::profile::Protocol::Anthropic));
    let times = [provider.first_byte_timeout, provider.idle_timeout, provider.total_timeout];
    assert_eq!(times, [5, 7, 120].map(Duration::from_secs));
}

#[test]
fn limits_are_read_under_their_names_and_keep_their_defaults() {
    let limits = |yaml: &str| load_with(Some(yaml), &[]).unwrap().limits;
    assert_eq!(limits("{}"), Limits::default());
    let written = limits(
        "limits: { nesting: 32, values: 5000, tool_result: 1MiB, kept_answer: 2MiB, keys: 5, body: 8MB, small_body: 64KiB, \
         bodies: 1GiB, body_wait: 1s, body_timeout: 2m, refused_body: 0, head: 16KiB, \
         header_timeout: 5s, idle_timeout: 6s, write_timeout: 7s, connections: 100, \
         connections_per_address: 99, http2_streams: 8, shutdown: 9s, \
         file_size: 2MiB, folder_size: 3MiB, file_values: 4000, file_expanded: 5MiB, \
         file_checks: 6000, ready_wait: 4s, answer: 7MiB, answer_pieces: 8000, runs: 9, cache: 10MiB, histories: 11MiB }",
    );
    let engine = &written.engine;
    assert_eq!((engine.answer.bytes, engine.answer.pieces, engine.runs), (7 << 20, 8000, 9));
    assert_eq!((engine.cache, engine.histories), (10 << 20, 11 << 20));
    let files = FileLimits {
        size: 2 << 20,
        folder: 3 << 20,
        values: 4000,
        expanded: 5 << 20,
        checks: 6000,
        ..FileLimits::default()
    };
    assert_eq!(written.engine.files, files);
    assert_eq!((written.engine.json.depth, written.engine.json.values), (32, 5000));
    assert_eq!(
        (written.engine.tool_result, written.kept_answer, written.keys),
        (1 << 20, 2 << 20, 5)
    );
    let transport = TransportLimits {
        body: 8_000_000,
        small_body: 64 << 10,
        bodies: 1 << 30,
        body_wait: Duration::from_secs(1),
        body_timeout: Duration::from_mins(2),
        refused_body: 0,
        head: 16 << 10,
        header_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(6),
        write_timeout: Duration::from_secs(7),
        connections: 100,
        connections_per_address: Some(99),
        http2_streams: 8,
        shutdown: Duration::from_secs(9),
        ready_wait: Duration::from_secs(4),
    };
    assert_eq!(written.transport, transport);
}

/// The example, which names every key.
const EXAMPLE: &str = include_str!("../../../examples/exile.yaml");

#[test]
fn the_example_is_accepted_and_its_limits_are_the_defaults() {
    let config = load_with(Some(EXAMPLE), &[]).unwrap_or_else(|e| panic!("{e}: {e:#?}"));
    let mut limits = Limits::default();
    // Written out, since its default hangs on another limit.
    limits.transport.connections_per_address = Some(8_000);
    assert_eq!(config.limits, limits);
    let acme = config.providers.iter().find(|p| p.name == "acme").unwrap();
    let usual = ProviderConfig::new("acme");
    let times = |p: &ProviderConfig| (p.first_byte_timeout, p.idle_timeout, p.total_timeout);
    assert_eq!((times(acme), acme.retries), (times(&usual), usual.retries));
    assert_eq!(config.bind.to_string(), BIND);
    assert_eq!(config.default_graph, DEFAULT_GRAPH);
}

#[test]
fn the_example_names_every_key() {
    let schema: Value = serde_json::from_str(&Subject::Config.text()).unwrap();
    let keys_left_out = |text: &str| {
        let written = yaml::parse("exile.yaml", text).unwrap().to_json();
        let mut found = Vec::new();
        left_out(&schema, &schema, &[&written], "", &mut found);
        found
    };
    let some = "quotas: { user: { a: { requests: 1/min, money: 1/day } } }\nlimits: { runs: 5 }\n";
    let some = keys_left_out(some);
    assert!(some.contains(&"/quotas/user/*/tokens".to_owned()), "{some:?}");
    assert!(some.contains(&"/limits/nesting".to_owned()), "{some:?}");
    assert!(!some.contains(&"/quotas/user/*/money".to_owned()), "{some:?}");
    // These cannot be written: the example names them in a comment.
    let later = ["/http_tools", "/mcp_servers", "/plugins", "/collections"];
    assert_eq!(keys_left_out(EXAMPLE), later);
    for key in later {
        assert!(EXAMPLE.contains(&format!("#   {}:", &key[1..])), "{key}");
    }
}

/// Keys of a schema that stand in none of `values`, which stand at its place. Names that a file
/// chooses are `*`.
fn left_out(schema: &Value, root: &Value, values: &[&Value], place: &str, found: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let definition = root.pointer(name.trim_start_matches('#')).unwrap();
        left_out(definition, root, values, place, found);
    }
    for parts in ["allOf", "anyOf", "oneOf"] {
        for part in schema[parts].as_array().into_iter().flatten() {
            left_out(part, root, values, place, found);
        }
    }
    let items: Vec<&Value> = values.iter().filter_map(|v| v.as_array()).flatten().collect();
    if schema["items"].is_object() {
        left_out(&schema["items"], root, &items, &format!("{place}/-"), found);
    }
    let maps: Vec<_> = values.iter().filter_map(|value| value.as_object()).collect();
    for (key, inside) in schema["properties"].as_object().into_iter().flatten() {
        let place = format!("{place}/{key}");
        let there: Vec<&Value> = maps.iter().filter_map(|map| map.get(key)).collect();
        if there.is_empty() {
            found.push(place);
        } else {
            left_out(inside, root, &there, &place, found);
        }
    }
    if schema["additionalProperties"].is_object() {
        let entries = maps.iter().flat_map(|map| map.iter());
        let chosen = entries.filter(|(key, _)| schema["properties"].get(key.as_str()).is_none());
        let chosen: Vec<&Value> = chosen.map(|(_, value)| value).collect();
        left_out(&schema["additionalProperties"], root, &chosen, &format!("{place}/*"), found);
    }
}

#[test]
fn people_reach_it_where_the_file_or_the_environment_says() {
    let public = |yaml: &str, variables: &[(&str, &str)]| {
        load_with(Some(yaml), variables).map(|config| config.public_url)
    };
    let written = "public_url: https://exile.example/";
    assert_eq!(public(written, &[]).unwrap().as_deref(), Some("https://exile.example"));
    let other = [("EXILE_PUBLIC_URL", "https://other.example")];
    assert_eq!(public(written, &other).unwrap().as_deref(), Some("https://other.example"));
    for none in ["", "public_url: ''", "public_url: \"${NOWHERE:-}\""] {
        assert_eq!(public(none, &[]).unwrap(), None, "{none}");
    }
    assert!(public("public_url: exile.example", &[]).is_err());
    assert!(public("trusted_proxies: [proxy.internal]", &[]).is_err());
    assert!(public("trusted_proxies: [10.0.0.0/8, '::1']", &[]).is_ok());
}
