// The page as an app, where the browser offers that: over https and on this machine itself. Elsewhere there
// is no service worker and no offer, and nothing here does anything.

/** The browser's offer to install the page. @type {any} */
let offer = null;

/** Tells `changed` whether the page can be installed now. */
export function watchOffers(changed) {
  window.addEventListener('beforeinstallprompt', (event) => {
    // The page has a button for it.
    event.preventDefault();
    offer = event;
    changed(true);
  });
  window.addEventListener('appinstalled', () => {
    offer = null;
    changed(false);
  });
}

/** Asks the person, as the browser does it; an offer is good for one question. */
export async function install(changed) {
  const asked = offer;
  offer = null;
  changed(false);
  await asked?.prompt();
}

/** Keeps the page on this device for when there is no node. Resolves to why that is not possible, or null. */
export async function keepPage(build) {
  if (!window.isSecureContext || !('serviceWorker' in navigator)) return null;
  try {
    await navigator.serviceWorker.register(`/sw.js?build=${build}`);
    return null;
  } catch (error) {
    return String(error?.message ?? error);
  }
}
