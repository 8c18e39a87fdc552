// A table, a formula or an output that is wider than its place gets a name, and the focus by the keyboard, so that the
// arrows scroll it.
const mark = () => {
  for (const wrapper of document.querySelectorAll(".table-wrapper, .math-wrapper, .sphx-glr-script-out pre")) {
    if (wrapper.scrollWidth > wrapper.clientWidth) {
      wrapper.tabIndex = 0;
      wrapper.setAttribute("role", "group");
      wrapper.setAttribute("aria-label", "Wider than the page");
    } else {
      for (const name of ["tabindex", "role", "aria-label"]) wrapper.removeAttribute(name);
    }
  }
};
mark();
addEventListener("resize", mark);
