//! The resolver: what a name stands for is checked before it is handed out.

use reqwest::dns::Resolve as _;

use super::*;

#[tokio::test]
async fn a_name_that_stands_for_a_private_address_is_not_resolved() {
    let name = "localhost".parse().unwrap();
    let refused = Resolver.resolve(name).await.err().unwrap();
    let refused = refused.downcast_ref::<Refused>().unwrap();
    assert!(refused.0.starts_with("a loopback address ("), "{refused}");
}

#[tokio::test]
async fn the_guarded_connector_connects_through_that_resolver_alone() {
    // The name is known to mean this machine; here only what it resolves to is judged.
    let url = parse("http://localhost:1/").unwrap();
    let error = build(false, None).unwrap().get(url.clone()).send().await.unwrap_err();
    assert!(matches!(failure(&url, &error), HttpError::Denied { .. }), "{error:?}");
    let error = build(true, None).unwrap().get(url.clone()).send().await.unwrap_err();
    assert!(matches!(failure(&url, &error), HttpError::Connect { .. }), "{error:?}");
}

#[test]
fn an_endpoint_keeps_path_and_query_of_its_base() {
    let query = [("api-version".to_owned(), "a&b".to_owned())];
    for base in ["http://h:1/openai/v1", "http://h:1/openai/v1/"] {
        let url = endpoint(base, "chat/completions", &query).unwrap();
        assert_eq!(url, "http://h:1/openai/v1/chat/completions?api-version=a%26b");
    }
    assert!(endpoint("h:1/v1", "chat/completions", &[]).is_err());
}
