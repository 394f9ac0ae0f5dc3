// What scrolls can be reached by the keyboard.
window.addEventListener("load", () => {
  for (const one of document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset pre, .md-typeset pre > code, .jp-OutputArea-output"))
    one.tabIndex = 0;
  for (const one of document.querySelectorAll(".md-content p:has(> img)"))
    if (one.scrollWidth > one.clientWidth) one.tabIndex = 0;
});
