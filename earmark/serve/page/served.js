// Removes the note of a page that was opened without a server: modules run, so there is one.
document.getElementById("unserved")?.remove();
