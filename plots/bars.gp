# bars.gp - groups of bars with intervals. data: a block of "place y lo hi label" a series; barwidth: of one bar.
set boxwidth barwidth
set style fill solid 1.0 noborder
set grid noxtics ytics
set tics scale 0
plot for [i=1:series] data index i-1 using 1:2 with boxes linecolor rgb fill[i] notitle, \
     for [i=1:series] data index i-1 using 1:($3==$3 ? $2 : NaN):3:4 with yerrorbars linecolor rgb '#444444' pointtype -1 linewidth 0.8 notitle, \
     for [i=1:series] data index i-1 using 1:2:5 with labels offset 0,0.7 font labelfont textcolor rgb ink notitle
