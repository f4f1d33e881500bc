"use strict";
// Keeps the page as the service has it: asks every few seconds, changes only the sections that changed, and says so
// when no answer comes. What is shown is rendered and escaped by shell/page.py alone.
(() => {
  const EVERY_MS = 2000, HIDDEN_EVERY_MS = 15000, PATIENCE_MS = 5000, STALE_MS = 9000;
  const body = document.body, main = document.querySelector("main"), stale = document.getElementById("stale");
  const fresh = document.getElementById("fresh");
  const shell = body.dataset.shell;
  let etag = body.dataset.etag, siteMs = 1000 * Number(body.dataset.now), heardMs = Date.now(), timer = 0, asking = false;

  // As core.phrases.duration with one unit.
  function age(seconds) {
    const s = Math.max(0, Math.floor(seconds));
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min`;
    if (s < 86400) return `${Math.floor(s / 3600)} h`;
    return `${Math.floor(s / 86400)} d`;
  }

  function tick() {
    const sinceMs = Math.max(0, Date.now() - heardMs), isStale = sinceMs > STALE_MS;
    body.classList.toggle("stale", isStale);
    const text = isStale ? `No answer from vcrecon for ${age(sinceMs / 1000)}: below is what it said last.` : "";
    if (stale.textContent !== text) stale.textContent = text;
    fresh.textContent = `Live: as of ${age(sinceMs / 1000)} ago`;
    if (isStale) return;  // ages on data that is old would tell of a site that nobody sees
    const nowS = (siteMs + sinceMs) / 1000;
    for (const time of document.querySelectorAll("time[data-s]")) {
      const said = age(nowS - Number(time.dataset.s));
      if (time.textContent !== said) time.textContent = said;
    }
  }

  const texts = new Map();
  for (const section of main.children) texts.set(section.id, section.outerHTML);

  function show(html) {
    const news = document.createElement("template");
    news.innerHTML = html;
    const focused = document.activeElement && document.activeElement.id;
    for (const section of [...news.content.children]) {
      const text = section.outerHTML, old = document.getElementById(section.id);
      if (texts.get(section.id) === text) continue;
      texts.set(section.id, text);
      for (const open of old.querySelectorAll("details[open]")) {
        const same = section.querySelector(`#${CSS.escape(open.id)}`);
        if (same) same.open = true;
      }
      old.replaceWith(section);
    }
    if (focused && document.activeElement === body) document.getElementById(focused)?.focus({ preventScroll: true });
    document.title = document.getElementById("top").dataset.title;
  }

  async function ask() {
    if (asking) return;
    asking = true;
    clearTimeout(timer);
    const patience = new AbortController(), bell = setTimeout(() => patience.abort(), PATIENCE_MS);
    try {
      const answer = await fetch("view", {
        headers: { "If-None-Match": etag }, cache: "no-store", signal: patience.signal,
      });
      const html = answer.status === 200 ? await answer.text() : "";
      if (answer.status !== 200 && answer.status !== 304) throw new Error(`status ${answer.status}`);
      const theirs = answer.headers.get("X-Vcrecon-Shell");
      if (theirs && theirs !== shell) return location.reload();  // the service was upgraded
      heardMs = Date.now() - 1000 * Number(answer.headers.get("X-Vcrecon-Age"));
      siteMs = 1000 * Number(answer.headers.get("X-Vcrecon-Now"));
      if (html) {
        show(html);
        etag = answer.headers.get("ETag");
      }
    } catch {
      // No answer, or half of one: tick() says how long ago the last good one was.
    } finally {
      clearTimeout(bell);
      asking = false;
      timer = setTimeout(ask, document.hidden ? HIDDEN_EVERY_MS : EVERY_MS);
      tick();
    }
  }

  setInterval(tick, 1000);
  addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
  addEventListener("pageshow", ask);
})();
