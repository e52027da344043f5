//! Users, keys, sign-in links and sessions.

use std::time::Duration;

use exile_engine::env::Env as _;
use exile_server::store::{Page, Role, StoreError};
use jiff::SignedDuration;

use super::Home;

#[tokio::test]
async fn users_are_found_by_id_and_by_their_unique_name() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    let ann = store.create_user("ann", Role::Admin).await.unwrap();
    let bob = store.create_user("bob", Role::User).await.unwrap();
    let taken = store.create_user("ann", Role::User).await;
    assert!(matches!(taken, Err(StoreError::Taken(name)) if name == "ann"));
    assert_eq!(store.user(&ann.id).await.unwrap(), Some(ann.clone()));
    assert_eq!(store.user_by_name("bob").await.unwrap(), Some(bob.clone()));
    assert_eq!(store.user_by_name("eve").await.unwrap(), None);
    assert_eq!(store.list_users(Page::default()).await.unwrap().items, [ann, bob]);
}

#[tokio::test]
async fn a_key_proves_its_user_until_it_is_revoked() {
    let home = Home::new().await;
    let user = home.store.create_user("ann", Role::Author).await.unwrap();
    let scopes = ["act_as".to_owned()];
    let (key, secret) = home.store.create_key(&user.id, "laptop", &scopes, None).await.unwrap();
    assert!(secret.starts_with("exk_") && secret.len() == 47, "{secret}");
    assert!(secret.starts_with(&key.prefix) && key.prefix.len() == 10);
    let home = home.reopen().await;
    let owner = home.store.key_owner(&secret).await.unwrap().unwrap();
    assert_eq!((owner.key, owner.user, owner.role), (key.clone(), user.clone(), Role::Author));
    let listed = async || home.store.list_keys(&user.id, Page::default()).await.unwrap().items;
    assert!(listed().await[0].last_used_at.is_some());
    assert!(home.store.revoke_key(&key.id).await.unwrap());
    assert!(home.store.key_owner(&secret).await.unwrap().is_none());
    assert!(listed().await[0].revoked_at.is_some());
    assert!(!home.store.revoke_key("key_unknown").await.unwrap());
}

#[tokio::test]
async fn no_other_text_is_a_key() {
    let Home { store, env, folder: _folder } = Home::new().await;
    let user = store.create_user("ann", Role::User).await.unwrap();
    let (_, secret) = store.create_key(&user.id, "laptop", &[], None).await.unwrap();
    let (_, twin) = store.create_key(&user.id, "phone", &[], None).await.unwrap();
    assert_ne!(secret, twin);
    let expires = env.now() + SignedDuration::from_mins(5);
    let (_, brief) = store.create_key(&user.id, "brief", &[], Some(expires)).await.unwrap();
    assert!(store.key_owner(&brief).await.unwrap().is_some());
    env.advance(Duration::from_mins(5));
    let shorter = &secret[..46];
    let longer = format!("{secret}A");
    let upper = secret.to_uppercase();
    for wrong in ["", "exk_", "null", "exk_%", shorter, &longer, &upper, &brief, &secret[..10]] {
        assert!(store.key_owner(wrong).await.unwrap().is_none(), "{wrong}");
    }
    assert!(store.key_owner(&secret).await.unwrap().is_some());
}

#[tokio::test]
async fn a_sign_in_link_works_once_and_for_ten_minutes() {
    let Home { store, env, folder: _folder } = Home::new().await;
    let user = store.create_user("ann", Role::Admin).await.unwrap();
    let link = store.create_sign_in(&user.id, None).await.unwrap().0;
    assert_eq!(link.len(), 43);
    let (session, owner) = store.redeem_sign_in(&link).await.unwrap().unwrap();
    assert_eq!(owner, user);
    assert_ne!(session, link);
    assert!(store.redeem_sign_in(&link).await.unwrap().is_none(), "a second time");
    assert!(store.redeem_sign_in("").await.unwrap().is_none());
    assert!(store.session_owner(&link).await.unwrap().is_none(), "a link is no session");
    let late = store.create_sign_in(&user.id, None).await.unwrap().0;
    env.advance(Duration::from_mins(10));
    assert!(store.redeem_sign_in(&late).await.unwrap().is_none(), "too late");
}

#[tokio::test]
async fn a_session_ends_when_told_when_idle_and_after_seven_days() {
    let Home { store, env, folder: _folder } = Home::new().await;
    let user = store.create_user("ann", Role::Admin).await.unwrap();
    let session = async || {
        let link = store.create_sign_in(&user.id, None).await.unwrap().0;
        store.redeem_sign_in(&link).await.unwrap().unwrap().0
    };
    let ended = session().await;
    assert_eq!(store.session_owner(&ended).await.unwrap().unwrap().user, user);
    store.end_session(&ended).await.unwrap();
    assert_eq!(store.session_owner(&ended).await.unwrap(), None);

    let idle = session().await;
    env.advance(Duration::from_hours(12));
    assert_eq!(store.session_owner(&idle).await.unwrap(), None);

    let busy = session().await;
    for hour in (0..165).step_by(11) {
        assert!(store.session_owner(&busy).await.unwrap().is_some(), "after {hour} hours");
        env.advance(Duration::from_hours(11));
    }
    env.advance(Duration::from_hours(3));
    assert_eq!(store.session_owner(&busy).await.unwrap(), None, "after seven days");
}

#[tokio::test]
async fn no_secret_is_in_the_file() {
    let home = Home::new().await;
    let user = home.store.create_user("ann", Role::Admin).await.unwrap();
    let (_, key) = home.store.create_key(&user.id, "laptop", &[], None).await.unwrap();
    home.store.key_owner(&key).await.unwrap().unwrap();
    let spent = home.store.create_sign_in(&user.id, None).await.unwrap().0;
    let (session, _) = home.store.redeem_sign_in(&spent).await.unwrap().unwrap();
    home.store.session_owner(&session).await.unwrap().unwrap();
    let link = home.store.create_sign_in(&user.id, None).await.unwrap().0;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(home.database().parent().unwrap()).unwrap() {
        files.extend(std::fs::read(entry.unwrap().path()).unwrap());
    }
    let holds = |text: &str| files.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(holds("laptop"), "the search finds what is there");
    for secret in [&key[10..], &spent, &session, &link] {
        assert!(!holds(secret), "{secret}");
    }
}
