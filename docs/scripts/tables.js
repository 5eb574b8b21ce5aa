// Wide tables scroll. Let the keyboard reach what the theme wraps them in.
document$.subscribe(() =>
  setTimeout(() => {
    for (const wrapper of document.querySelectorAll(".md-typeset__scrollwrap")) wrapper.tabIndex = 0;
  }),
);
