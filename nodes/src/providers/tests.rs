//! Configurations and what they refuse.

use exile_engine::env::StepEnv;
use exile_engine::model::ModelRef;
use exile_engine::model::card::Catalogue;
use exile_engine::span::NoTrace;

use super::*;

fn make(config: ProviderConfig) -> Result<Arc<dyn Provider>, ConfigError> {
    provider(config, Arc::new(NoTrace), Arc::new(StepEnv::new()))
}

fn keyed(name: &str) -> ProviderConfig {
    ProviderConfig { api_key: Some(Secret::new("sk-1")), ..ProviderConfig::new(name) }
}

#[test]
fn built_in_names_need_a_key_alone() {
    for name in ["deepseek", "openai", "gemini", "anthropic"] {
        assert_eq!(make(keyed(name)).unwrap().ready(), Ok(()));
        let missing = make(ProviderConfig::new(name)).unwrap().ready().unwrap_err();
        assert_eq!(missing.fault.code(), "provider_key_missing");
        let variable = format!("{}_API_KEY", name.to_uppercase());
        assert!(missing.to_string().contains(&variable), "{missing}");
        let config = ProviderConfig::new(name);
        let minute = Duration::from_mins(1);
        assert_eq!((config.first_byte_timeout, config.idle_timeout), (minute, minute));
    }
}

#[test]
fn other_names_need_an_address() {
    let error = make(keyed("my-server")).err().unwrap();
    assert_eq!(error, ConfigError::BaseUrlMissing("my-server".into()));
    let empty = ProviderConfig { base_url: Some(" ".into()), ..keyed("my-server") };
    assert_eq!(make(empty).err(), Some(error));
    let bad = ProviderConfig { base_url: Some("ftp://x".into()), ..keyed("my-server") };
    assert!(matches!(make(bad).err(), Some(ConfigError::Address { .. })));
    assert_eq!(ProviderConfig::new("my-server").key_variable, "MY_SERVER_API_KEY");
}

#[test]
fn a_key_may_stand_in_a_header_or_not_be_needed() {
    let header = |value: &str| ProviderConfig {
        headers: vec![("Api-Key".into(), Secret::new(value))],
        ..ProviderConfig::new("openai")
    };
    assert!(make(header("azure")).unwrap().ready().is_ok());
    assert!(make(header("")).unwrap().ready().is_err());
    let keyless = ProviderConfig { keyless: true, ..ProviderConfig::new("openai") };
    assert!(make(keyless).unwrap().ready().is_ok());
}

#[test]
fn a_secret_prints_nothing() {
    let shown = format!("{:?}", keyed("openai"));
    assert!(shown.contains("[secret]") && !shown.contains("sk-1"), "{shown}");
}

#[test]
fn the_catalogue_is_read_and_every_cell_of_it_has_a_source_and_a_day() {
    let claims = super::catalogue().unwrap();
    for (name, claims) in &claims {
        for claim in claims {
            assert!(claim.source.is_some() && claim.date.is_some(), "{name}: {claim:?}");
        }
    }
    let catalogue = Catalogue::empty().with(claims, "shipped");
    let card = catalogue.card(&ModelRef::parse("deepseek/deepseek-flash").unwrap());
    assert_eq!(card.vision.as_ref().map(|cell| cell.value), Some(true));
    assert_eq!(card.json_schema.as_ref().map(|cell| cell.value), Some(false));
    assert_eq!(card.prices.as_ref().unwrap().value.len(), 2, "a peak price and another one");
}

#[test]
fn a_protocol_may_be_chosen_and_a_name_goes_on_from_another() {
    let of = |name: &str, protocol| {
        let profile = profile(name, protocol);
        (profile.name, profile.protocol)
    };
    assert_eq!(of("anthropic", None), ("anthropic", Protocol::Anthropic));
    assert_eq!(of("azure-eu", None), ("azure", Protocol::Chat));
    assert_eq!(of("azureish", None), ("", Protocol::Chat));
    assert_eq!(of("acme", Some(Protocol::Anthropic)), ("anthropic", Protocol::Anthropic));
    assert_eq!(of("anthropic", Some(Protocol::Chat)), ("", Protocol::Chat));
    assert_eq!(of("mistral", Some(Protocol::Chat)), ("mistral", Protocol::Chat));
    let elsewhere = ProviderConfig { protocol: Some(Protocol::Chat), ..keyed("anthropic") };
    assert_eq!(make(elsewhere).err(), Some(ConfigError::BaseUrlMissing("anthropic".into())));
}

#[test]
fn a_key_goes_where_the_provider_looks_for_it() {
    let header = |name: &str| {
        let config = keyed(name);
        let found = headers(&config, &profile(name, None)).unwrap();
        found.iter().map(|(n, v)| format!("{n}: {}", v.expose())).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(header("openai"), "authorization: Bearer sk-1");
    assert_eq!(header("azure"), "api-key: sk-1");
    assert_eq!(header("anthropic"), "x-api-key: sk-1, anthropic-version: 2023-06-01");
}
