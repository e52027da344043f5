//! Every special range is refused at both ends, its public neighbours are not.

use super::*;

fn check_refused(addresses: &[&str]) {
    for address in addresses {
        let ip = address.parse().unwrap();
        assert!(refusal(ip).is_some(), "{address} must be refused");
    }
}

fn check_public(addresses: &[&str]) {
    for address in addresses {
        let ip = address.parse().unwrap();
        assert_eq!(refusal(ip), None, "{address} is public");
    }
}

#[test]
fn ipv4_ranges_end_where_the_registry_says() {
    check_refused(&[
        "0.0.0.0",
        "0.255.255.255",
        "10.0.0.0",
        "10.255.255.255",
        "100.64.0.0",
        "100.127.255.255",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.0.1",
        "169.254.169.254",
        "172.16.0.0",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "192.168.255.255",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
    ]);
    check_public(&[
        "1.0.0.0",
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "168.63.129.17",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
    ]);
}

#[test]
fn ipv6_hides_no_private_address() {
    check_refused(&[
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:0:127.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff02::1",
    ]);
    check_public(&["2606:4700:4700::1111", "2001:4860:4860::8888", "2a00:1450::1", "fbff::1"]);
}

#[test]
fn allow_names_a_host_and_perhaps_a_port() {
    for (entry, host, port, named) in [
        ("shop.internal", "shop.internal", 80, true),
        ("shop.internal", "SHOP.internal.", 8000, true),
        ("shop.internal", "evil.shop.internal", 80, false),
        ("shop.internal:8000", "shop.internal", 8000, true),
        ("shop.internal:8000", "shop.internal", 80, false),
        ("10.0.0.7", "10.0.0.7", 1, true),
        ("10.0.0.7:5", "10.0.0.7", 6, false),
        ("::1", "[::1]", 80, true),
        ("[::1]", "[::1]", 80, true),
        ("[::1]:80", "[::1]", 81, false),
        ("localhost", "127.0.0.1", 80, false),
    ] {
        assert_eq!(Allow::parse(entry).names(host, port), named, "{entry} {host}:{port}");
    }
    assert!(Allow::exactly("[::1]", 80).names("[::1]", 80));
}
