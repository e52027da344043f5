//! Where people reach the server.

/// An address under which people reach the server, without a slash at its end.
///
/// # Errors
/// What is wrong with it.
pub(super) fn public_url(text: &str) -> Result<String, &'static str> {
    let text = text.trim_end_matches('/');
    let Some((scheme, host, path)) = split_url(text) else {
        return Err("write the whole address, e.g. https://exile.example.com");
    };
    if !matches!(scheme, "https" | "http") {
        return Err("write an address that begins with https://");
    }
    let odd = |c: char| c.is_whitespace() || c.is_control() || "?#@\"<>\\".contains(c);
    if host.is_empty() || host.contains(odd) || path.contains(odd) {
        return Err("write scheme, host, and a path if there is one, and nothing else");
    }
    Ok(text.to_owned())
}

/// Scheme, host with its port, and what follows; `None`: it is no whole address.
pub(crate) fn split_url(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find('/').unwrap_or(rest.len());
    Some((scheme, &rest[..end], &rest[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_address_is_whole_and_nothing_more() {
        assert_eq!(public_url("https://exile.example/").unwrap(), "https://exile.example");
        assert_eq!(
            public_url("https://a.example:8443/exile").unwrap(),
            "https://a.example:8443/exile"
        );
        for wrong in
            ["exile.example", "ftp://a", "https://", "https://a?b", "https://u@a", "https://a b"]
        {
            assert!(public_url(wrong).is_err(), "{wrong}");
        }
    }
}
