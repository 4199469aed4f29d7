//! Secrets of a project.

use subak_testkit::Sandbox;

/// Gives a project a secret.
pub(crate) fn set_secret(sandbox: &Sandbox, name: &str, value: &str) {
    let path = sandbox.path().join(".subak/secrets").join(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(&path, value).expect("a secret");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("permissions");
}
