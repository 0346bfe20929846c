// The script of the console. Every page works without it; it reads parts of pages again, and keeps forms in place.
"use strict";

const FRAGMENT = { "X-Fragment": "1" };

async function fetched(url, options = {}) {
  const answer = await fetch(url, { credentials: "same-origin", ...options, headers: { ...FRAGMENT, ...options.headers } });
  const signin = answer.headers.get("X-Signin");
  if (signin) {
    location.assign(signin);
    throw new Error("signed out");
  }
  return answer;
}

// --- parts that are read again -------------------------------------------------------------------------------------

function poll(part) {
  const every = Number(part.dataset.every) || 5000;
  const state = document.querySelector("[data-live-state]");
  const text = document.querySelector("[data-live-text]");
  const show = (isFresh) => {
    if (!state) return;
    state.classList.toggle("is-stale", !isFresh);
    text.textContent = isFresh ? "Live" : "The server does not answer; trying again";
  };
  const again = async () => {
    if (document.hidden) return;
    try {
      const answer = await fetched(part.dataset.poll);
      if (answer.ok) {
        const html = await answer.text();
        // What somebody reads or has focused stays where it is.
        if (!part.contains(document.activeElement)) part.innerHTML = html;
      }
      show(answer.ok);
    } catch {
      show(false);
    }
  };
  setInterval(again, every);
  document.addEventListener("visibilitychange", again);
}

// --- forms that change with what is chosen -------------------------------------------------------------------------

let latest = 0;

async function replaced(form, submitter) {
  const number = ++latest;
  const target = document.querySelector(form.dataset.partial);
  const body = new URLSearchParams(new FormData(form, submitter));
  const focused = document.activeElement && document.activeElement.id;
  const answer = await fetched(form.dataset.reload, { method: "POST", body });
  const html = await answer.text();
  if (number !== latest) return; // a later change has been answered already
  target.innerHTML = html;
  const again = focused && document.getElementById(focused);
  if (again) again.focus();
}

function watch(form) {
  form.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-partial-action]");
    if (!button) return;
    event.preventDefault();
    replaced(form, button).catch(() => form.requestSubmit(button));
  });
  form.addEventListener("change", (event) => {
    if (event.target.matches("[data-reload]")) replaced(form).catch(() => {});
  });
}

for (const part of document.querySelectorAll("[data-poll]")) poll(part);
for (const form of document.querySelectorAll("form[data-partial]")) watch(form);
